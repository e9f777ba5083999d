"""The audit log: one JSON line per tool call, per resource or prompt that is read, and per event of sign-in.

{"time":"2026-11-25T03:04:05.678Z","event":"call","outcome":"ok","login":"ann","kind":"password","client_id":"…",
 "client_name":"Claude","address":"203.0.113.7","tool":"send","server":"opencode","asked":"laptop",
 "instance":"laptop-0","session":"ses_…","duration_ms":812}

`asked` is the instance that the caller named, `instance` the one that it turned out to be. What people and agents
said is in no line unless `audit.messages` is on.

A line that cannot be written is an error in the service's log, and from then on, until one can be written again,
calls that do more than observe are refused: what goes on unseen is at most what ran when the log broke.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import IO, TYPE_CHECKING, Any, Final

from opencode_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opencode_gateway.configuration import Audit

PAGES: Final = "pages"
"""What our own pages are called among clients, here and in lists of sessions. No client has this id."""
LINE_BYTES: Final = 8 * 1024
MESSAGES_LINE_BYTES: Final = 64 * 1024
"""The longest line, without and with messages; longer values are cut."""
_FIELD_CHARS: Final = 500
_ID_CHARS: Final = 1024
"""Of a client's id, with which `clients revoke` can do nothing if a part of it is missing."""
_PROOF_CHARS: Final = 4500
"""Of a passkey's signature and what it is over, which proves nothing if a part of it is missing."""
_BODY_CHARS: Final = 24_000
_PROOFS: Final = frozenset({"proof", "credential", "public_key"})
_BODIES: Final = frozenset({"arguments", "result"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """What happened, and through whom. `details` are further fields, of this kind of event alone."""

    event: str
    """`call`, `resource`, `prompt`, `resources` (a list of them), `login`, `client-admitted`, `token-revoked` …"""
    outcome: str
    """`ok`, `refused`, …"""
    login: str | None = None
    kind: str | None = None
    client_id: str | None = None
    client_name: str | None = None
    address: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


class AuditLog:
    """Writes events, from any thread. `write` never raises: see `usable`."""

    def __init__(self, audit: Audit, clock: Callable[[], float] = time.time, stream: IO[str] | None = None) -> None:
        """Open the log; `stream` stands in for standard output.

        Raises:
            ConfigError: its file cannot be opened.
        """
        self.messages = audit.messages
        self._clock = clock
        self._limit = MESSAGES_LINE_BYTES if audit.messages else LINE_BYTES
        self._broken = False
        self._handler: logging.StreamHandler[Any]
        if audit.file is None:
            self._handler = _Stream(stream or sys.stdout)
            return
        try:
            self._handler = _File(
                audit.file, mode="a", maxBytes=audit.max_bytes, backupCount=audit.keep, encoding="ascii"
            )
        except OSError as error:
            raise ConfigError(f"audit.file: {audit.file} cannot be written: {error.strerror}") from error

    def write(self, event: AuditEvent) -> None:
        """Append a line for `event`."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(self._clock(), UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "event": event.event,
            "outcome": event.outcome,
            "login": event.login,
            "kind": event.kind,
            "client_id": event.client_id,
            "client_name": event.client_name,
            "address": event.address,
            **event.details,
        }
        try:
            self._handler.handle(_record(_line(fields, self._limit)))
        except (OSError, ValueError) as error:
            self._broken = True
            _log.error("an audit line cannot be written: %s; calls that change something are refused", error)
        else:
            self._broken = False

    def usable(self) -> bool:
        """Tell whether lines can be written, trying one if the last could not be."""
        if self._broken:
            self.write(AuditEvent(event="audit-resumed", outcome="ok"))
        return not self._broken

    def close(self) -> None:
        """Close the log's file, if it has one."""
        self._handler.close()


def _line(fields: Mapping[str, object], limit: int) -> str:
    """Return one line of ASCII of at most `limit` bytes: what is too long is cut, down to what fits."""
    chars, body = _FIELD_CHARS, _BODY_CHARS
    while True:
        # A line that is too long all the same, as of letters beyond ASCII, has shorter ids as well.
        longest = {
            **dict.fromkeys(_BODIES, body),
            "client_id": _ID_CHARS if chars == _FIELD_CHARS else chars,
            **dict.fromkeys(_PROOFS, _PROOF_CHARS),
        }
        bounded = {name: _cut(value, longest.get(name, chars)) for name, value in fields.items() if value is not None}
        line = json.dumps(bounded, ensure_ascii=True, separators=(",", ":"))
        if len(line) < limit:
            return line
        chars, body = (chars if body > chars else chars // 2), body // 2


def _cut(value: object, chars: int) -> object:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return _cut_list(value, chars)
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= chars else text[:chars] + "…"


def _cut_list(values: Sequence[object], chars: int) -> list[object]:
    """Return as many as fit, all together, into so many characters."""
    kept: list[object] = []
    for value in values:
        if chars <= 0:
            return [*kept, "…"]
        kept.append(_cut(str(value), chars))
        chars -= len(str(value)) + len('"",')
    return kept


def _record(line: str) -> logging.LogRecord:
    return logging.LogRecord("audit", logging.INFO, "", 0, line, None, None)


class _Stream(logging.StreamHandler[IO[str]]):
    """Standard output; what goes wrong is raised instead of printed."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise  # noqa: PLE0704 - called in the handler of what went wrong


class _File(RotatingFileHandler):
    """A file of the service's user alone, appended to and rotated."""

    def _open(self) -> IO[str]:  # type: ignore[override] # TextIOWrapper is what open() returns, too
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise  # noqa: PLE0704 - called in the handler of what went wrong


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
