"""The key that a relay knows this machine by: made here, and never leaving it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_connected.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_KEYGEN_SECONDS: Final = 30.0
"""It takes some milliseconds; a machine that has just booted may lack entropy."""
_ANOTHER: Final = "make another in its place with `opencode-connected enroll --new-key`"
_PUBLIC_KEY: Final = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}")


class _KeygenFailed(LauncherError):
    """ssh-keygen ran, and did not do it."""


def old_key_file(key_file: Path) -> Path:
    """Return where a key is kept that another one has replaced."""
    return key_file.with_name(f"{key_file.name}.old")


def public_key(key_file: Path) -> str | None:
    """Return the public half of the key, ``ssh-ed25519 BASE64``; None if there is no key yet.

    Raises:
        LauncherError: what is there cannot be used as one.

    """
    if not key_file.exists():
        return None
    # Derived, as a .pub file could be another key's. The empty passphrase is tried instead of asking for one.
    try:
        said = _ssh_keygen("-y", "-P", "", "-f", str(key_file), trouble=f"{key_file} cannot be used")
    except _KeygenFailed as error:
        is_open = "bad permissions" in str(error)
        remedy = f"others may read it: run `chmod 600 {shlex.quote(str(key_file))}`" if is_open else _ANOTHER
        raise LauncherError(f"{error}; {remedy}") from error
    match = _PUBLIC_KEY.match(said)
    if match is None:
        raise LauncherError(f"{key_file} is no ed25519 key; {_ANOTHER}")
    return match[0]


def make_key(key_file: Path) -> str:
    """Make the key, without a passphrase, mode 0600, and return its public half. One that is there is kept.

    Raises:
        LauncherError: it cannot be made, or what is there cannot be used.

    """
    with _made(key_file) as made, suppress(FileExistsError):
        # A link, as it never replaces anything, were it made a moment ago.
        os.link(made, key_file)
    return _certainly_public_key(key_file)


def replace_key(key_file: Path) -> str:
    """Make another key in the place of the one that is there, and return its public half.

    The one before it is kept, whatever it is: it may be in use still, and the replacement a mistake.

    Raises:
        LauncherError: it cannot be made, or the one that is there cannot be replaced.

    """
    with _made(key_file) as made:
        if os.path.lexists(key_file):
            # A link beside it first: at no time is there no key.
            before = made.with_name("before")
            os.link(key_file, before, follow_symlinks=False)
            if not before.is_symlink():
                before.chmod(0o600)
            before.replace(old_key_file(key_file))
        made.replace(key_file)
    return _certainly_public_key(key_file)


@contextmanager
def _made(key_file: Path) -> Iterator[Path]:
    """Make a key in a directory beside `key_file`, for the caller to take it from there, whose errors are told."""
    try:
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=key_file.parent, prefix=".") as temporary:
            made = Path(temporary) / "key"
            options = ("-q", "-t", "ed25519", "-N", "", "-C", "opencode-relay")
            _ssh_keygen(*options, "-f", str(made), trouble=f"{key_file} cannot be made")
            yield made
    except OSError as error:
        raise LauncherError(f"{key_file} cannot be made: {error.strerror}") from error


def _certainly_public_key(key_file: Path) -> str:
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
        raise _KeygenFailed(f"{trouble}: {said[-1] if said else 'ssh-keygen failed'}") from error
    return ran.stdout
