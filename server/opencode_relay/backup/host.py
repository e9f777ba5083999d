"""Where the parts of a backup lie on this host, and whose they are here. For root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular, write_atomically
from opencode_common.text import one_line
from opencode_relay.backup.tar import pack, unpack
from opencode_relay.errors import BackupError
from opencode_relay.settings import RelaySettings, account

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST_KEY: Final = re.compile(r"ssh_host_[a-z0-9]{1,20}_key(\.pub)?")
_SECONDS: Final = 120.0
"""For the gateway's files, whose database may be busy for ten."""


@dataclass(frozen=True)
class Host:
    """The relay itself. `ssh`: where sshd's host keys lie."""

    etc: Path
    settings: RelaySettings
    ssh: Path

    # ---- sshd

    def host_keys(self) -> dict[str, bytes]:
        """Return sshd's host keys by the names of their files. Raises `OSError`."""
        paths = sorted(path for path in self.ssh.iterdir() if _HOST_KEY.fullmatch(path.name))
        return {path.name: read_regular(path) for path in paths}

    def put_host_keys(self, keys: Mapping[str, bytes]) -> list[str]:
        """Put host keys in place; return the names of those that were not so already. Raises `OSError`."""
        there = self.host_keys()
        changed = [name for name, content in keys.items() if there.get(name) != content]
        for name in changed:
            mode = 0o644 if name.endswith(".pub") else 0o600
            write_atomically(self.ssh / name, keys[name], mode=mode, group=0)
        return changed

    # ---- the gateway

    def has_gateway_data(self) -> bool:
        """Tell whether the gateway has ever run here."""
        return (self.settings.gateway_data_dir / "gateway.sqlite3").exists()

    def gateway_files(self) -> dict[str, bytes]:
        """Return what the gateway keeps, while it runs; nothing where there is none. Raises `BackupError`."""
        directory = self.settings.gateway_data_dir
        if not directory.exists():
            return {}
        # Whose it is, and not whose it should be: after a removal it is root's.
        owner = directory.stat()
        told = self._as_gateway("read", owner.st_uid, owner.st_gid)
        try:
            return unpack(told)
        except ValueError as error:
            raise BackupError(f"the gateway's files in {directory} cannot be read: {error}") from None

    def put_gateway_files(self, files: Mapping[str, bytes]) -> list[str]:
        """Put the gateway's files in place; return the names of those that were not so already.

        Raises `BackupError`, `RelayConfigError`, `OSError`.
        """
        directory = self.settings.gateway_data_dir
        gateway = account(self.settings.gateway_user)
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
            os.chown(directory, gateway.pw_uid, gateway.pw_gid)
        except FileExistsError:
            pass
        if directory.lstat().st_uid != gateway.pw_uid:
            raise BackupError(
                f"{directory} does not belong to {self.settings.gateway_user}: run the playbook relay.yml, "
                "or move it away; then restore again"
            )
        told = self._as_gateway("write", gateway.pw_uid, gateway.pw_gid, pack(files))
        return told.decode(errors="replace").split()

    def _as_gateway(self, verb: str, uid: int, gid: int, content: bytes = b"") -> bytes:
        directory = self.settings.gateway_data_dir
        program = [sys.executable, "-I", "-m", "opencode_relay.backup.gateway_files", verb, str(directory)]
        try:
            ran = subprocess.run(
                program,
                input=content,
                capture_output=True,
                check=False,
                user=uid,
                group=gid,
                extra_groups=[],
                umask=0o077,
                cwd="/",
                env={},
                timeout=_SECONDS,
                # Without root's terminal, which that account could type into.
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise BackupError(
                f"the gateway's files in {directory} are not answered for: is its disk alive?"
            ) from None
        if ran.returncode != 0:
            reason = ran.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            done = "read" if verb == "read" else "written"
            raise BackupError(f"the gateway's files cannot be {done}: {one_line(reason, 300)}")
        return ran.stdout


def check_host_keys(keys: Mapping[str, bytes]) -> None:
    """Let nothing in with which sshd would not start again.

    Raises:
        BackupError: a key cannot be used, or does not belong to its public half.
    """
    with tempfile.TemporaryDirectory() as directory:
        for name in sorted(keys):
            if name.endswith(".pub"):
                continue
            path = Path(directory) / name
            path.touch(mode=0o600)
            path.write_bytes(keys[name])
            command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
            ran = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
            public = keys.get(f"{name}.pub")
            if ran.returncode != 0 or (public is not None and public.split()[:2] != ran.stdout.split()[:2]):
                raise BackupError(f"the host key {name} of the backup is damaged, or no pair with {name}.pub")
