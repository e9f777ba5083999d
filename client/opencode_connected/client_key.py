"""The key that a relay knows this machine by: made here, and never leaving it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_connected.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYGEN_SECONDS: Final = 30.0
"""It takes some milliseconds; a machine that has just booted may lack entropy."""
_PUBLIC_KEY: Final = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}")


def public_key(key_file: Path) -> str | None:
    """Return the public half of the key, ``ssh-ed25519 BASE64``; None if there is no key yet.

    Raises:
        LauncherError: what is there cannot be used as one.

    """
    if not key_file.exists():
        return None
    # Derived, as a .pub file could be another key's. The empty passphrase is tried instead of asking for one.
    said = _ssh_keygen("-y", "-P", "", "-f", str(key_file), trouble=f"{key_file} cannot be used")
    match = _PUBLIC_KEY.match(said)
    if match is None:
        raise LauncherError(f"{key_file} is no ed25519 key: move it away, and run `opencode-connected enroll` again")
    return match[0]


def make_key(key_file: Path) -> str:
    """Make the key, without a passphrase, mode 0600, and return its public half. One that is there is kept.

    Raises:
        LauncherError: it cannot be made, or what is there cannot be used.

    """
    try:
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=key_file.parent, prefix=".") as temporary:
            made = Path(temporary) / "key"
            options = ("-q", "-t", "ed25519", "-N", "", "-C", "opencode-relay")
            _ssh_keygen(*options, "-f", str(made), trouble=f"{key_file} cannot be made")
            # A link, as it never replaces anything, were it made a moment ago.
            with suppress(FileExistsError):
                os.link(made, key_file)
    except OSError as error:
        raise LauncherError(f"{key_file} cannot be made: {error.strerror}") from error
    made_key = public_key(key_file)
    if made_key is None:
        raise LauncherError(f"{key_file} vanished while it was made: run `opencode-connected enroll` again")
    return made_key


def _ssh_keygen(*arguments: str, trouble: str) -> str:
    command: Sequence[str] = ("ssh-keygen", *arguments)
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_KEYGEN_SECONDS,
            check=True,
        )
    except FileNotFoundError as error:
        raise LauncherError(f"{trouble}: ssh-keygen is not on PATH; install OpenSSH's client") from error
    except subprocess.TimeoutExpired as error:
        raise LauncherError(f"{trouble}: ssh-keygen has not answered for {_KEYGEN_SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip(" @")]
        raise LauncherError(f"{trouble}: {said[-1] if said else 'ssh-keygen failed'}") from error
    return ran.stdout
