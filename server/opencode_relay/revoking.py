"""Revoking a client, whatever else is broken: its key goes out of sshd's file and its sessions end before all else.

For that nothing is believed but authorized_keys and the table of processes: `clients.json` may be damaged or gone,
the disk full, the agent dead, another command stuck. Only then is it recorded, and said what kept it from being so.
"""

from __future__ import annotations

import pwd
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular
from opencode_relay.enrolment import Enrolment, Incomplete, locked, require_root, shut_out_words
from opencode_relay.errors import EnrolmentError, RelayConfigError, RelayError
from opencode_relay.files import blank_lines
from opencode_relay.processes import end_connections, end_without_session, identities
from opencode_relay.settings import account, load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_relay.enrolment import EnrolmentOutcome

_CUT_SECONDS: Final = 4.0
_LOCK_SECONDS: Final = 5.0
"""For another command to be done. Enrolling takes about two."""


@dataclass(frozen=True)
class _ShutOut:
    """What was done before anything else was looked at."""

    found: bool
    """Whether sshd's file had a key of that name, or a session ran under it."""
    is_out: bool
    """Whether no key of that name is in the file any more."""
    cut: int
    """Connections."""


def revoke(etc: Path, name: str) -> EnrolmentOutcome:
    """Cut the client `name` off, then remove it and refuse its key from now on.

    Raises:
        EnrolmentError, ConfigError: it says whether the key is out, and what is to be mended.
    """
    require_root()
    done = _shut_out(etc, name)
    try:
        with locked(etc, patience=_LOCK_SECONDS):
            enrolment = Enrolment(etc, load_settings(etc))
            if done.found and not enrolment.is_recorded:
                raise RelayConfigError(
                    f"{etc / 'clients.json'} is missing: put it back from a backup (opencode-relay restore FILE)"
                )
            outcome = enrolment.revoke(name)
    except Incomplete:  # it says itself what is done
        raise
    except (RelayError, OSError) as error:
        if not done.found:
            raise
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise EnrolmentError(
            f"{shut_out_words(name, is_out=done.is_out)}{reason}. "
            "Mend that and run this again: until then the key is not remembered as revoked"
        ) from error
    return replace(outcome, cut=outcome.cut + done.cut)


def _shut_out(etc: Path, name: str) -> _ShutOut:
    """Take every key of `name` out of sshd's file where it stands, and end what runs under that name."""
    keys = etc / "authorized_keys"
    has_key = False

    def is_of_client(line: bytes) -> bool:
        words = line.split()
        return not line.startswith(b"#") and len(words) > 2 and words[-1] == name.encode()

    try:
        has_key = any(map(is_of_client, read_regular(keys).split(b"\n")))
        blank_lines(keys, is_of_client)
        is_out = True
    except FileNotFoundError:  # nobody logs in
        is_out = True
    except OSError:
        is_out = False
    cut = _cut(etc, name, has_gone=has_key)
    return _ShutOut(found=bool(has_key or cut), is_out=is_out, cut=len(cut))


def _cut(etc: Path, name: str, *, has_gone: bool) -> set[int]:
    """End the sessions of `name`, whatever key they have; return which."""
    uid = _tunnel_uid(etc)
    if uid is None:
        return set()

    def doomed() -> set[int]:
        return {pid for pid, identity in identities(uid).items() if identity and identity.client == name}

    cut = end_connections(uid, doomed, within=_CUT_SECONDS)
    return cut | end_without_session(uid) if has_gone else cut


def _tunnel_uid(etc: Path) -> int | None:
    """Return whom clients log in as: by the settings, and where those are broken by whose group reads the keys."""
    try:
        return account(load_settings(etc).tunnel_user).pw_uid
    except RelayError:
        pass
    try:
        group = (etc / "authorized_keys").stat().st_gid
    except OSError:
        return None
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group and group != 0), None)
