"""What the service's log may hold of what others wrote: one record is one line, and no line looks like an audit line.

On a provisioned relay the log and the audit log end in one journal, and a child's text is not the gateway's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_CHARACTERS: Final = 2000
"""So much of a child's line is logged, and of a record's message."""
LINES: Final = 120
"""So many lines of a child are logged in a period; the others are counted."""
RECORDS: Final = 30
"""So many records of one of the libraries' loggers are logged in a period; the others are counted."""
PERIOD_SECONDS: Final = 60.0
_READ_BYTES: Final = 64 * 1024
"""What a pipe holds."""
_LAST_READS: Final = 16
"""A process that outlived the child may write on for ever."""

_log = logging.getLogger(__name__)


def escaped(text: str) -> str:
    """Return `text` with whatever could end or colour a line written out, as `repr` writes it."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


class LineFormatter(logging.Formatter):
    """Writes a record as one line, and its traceback as lines that begin with `|`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines. A traceback that another handler has formatted is formatted again."""
        message = record.getMessage()
        # Libraries quote what strangers sent.
        record.message = f"{message[:LINE_CHARACTERS]}…" if len(message) > LINE_CHARACTERS else message
        record.asctime = self.formatTime(record, self.datefmt)
        more: list[str] = []
        if record.exc_info:
            more += self.formatException(record.exc_info).split("\n")
        if record.stack_info:
            more += self.formatStack(record.stack_info).split("\n")
        return "\n".join((escaped(self.formatMessage(record)), *(f"  | {escaped(line)}" for line in more)))


class LogRateLimit(logging.Filter):
    """For the handler: no library says more in a period than somebody would read.

    Strangers can make one complain with each request, and a journal that is full drops its oldest lines, of which
    some are the audit log's.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._renewed_at = clock()
        self._said: Counter[str] = Counter()
        """By logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is logged; the gateway's own are."""
        if record.name.partition(".")[0] == __name__.partition(".")[0]:
            return True
        now = self._clock()
        if now >= self._renewed_at + PERIOD_SECONDS:
            left_out = sum(said - RECORDS for said in self._said.values() if said > RECORDS)
            self._renewed_at = now
            self._said.clear()
            if left_out:
                _log.warning("%d more complaints of libraries are left out", left_out)
        self._said[record.name] += 1
        return self._said[record.name] <= RECORDS


class ChildLog:
    """Logs what one child writes to its standard error: line by line, each bounded, and not too many.

    One pipe serves every process that the child comes to be. The event loop reads it, logged or not, so that no
    child waits for a reader. A line that a process did not finish is logged with the next one's first.
    """

    def __init__(self, name: str, period: float = PERIOD_SECONDS) -> None:
        self._name = name
        self._period = period
        self._reader: int | None = None
        self._writer: TextIO | None = None
        self._line = bytearray()
        self._logged = 0
        self._left_out = 0
        self._renewal: asyncio.TimerHandle | None = None

    def opened(self) -> TextIO:
        """Return the end of the pipe that the child gets."""
        if self._writer is None:
            self._reader, writer = os.pipe()
            os.set_blocking(self._reader, False)
            self._writer = os.fdopen(writer, "w")
            asyncio.get_running_loop().add_reader(self._reader, self._read)
        return self._writer

    def close(self) -> None:
        """Log what is left in the pipe, and close it."""
        if self._reader is None or self._writer is None:
            return
        asyncio.get_running_loop().remove_reader(self._reader)
        for _ in range(_LAST_READS):
            if not self._read():
                break
        if self._line:
            self._end_line()
        self._renew()
        self._writer.close()
        os.close(self._reader)
        self._reader = self._writer = None

    def say(self, told: str) -> None:
        """Log a line of or about the child, or count it."""
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().call_later(self._period, self._renew)
        if self._logged == LINES:
            self._left_out += 1
            return
        self._logged += 1
        _log.info("server %s%s", self._name, told)

    def _read(self) -> bool:
        """Log what the pipe holds; tell whether it held anything."""
        if self._reader is None:
            return False
        try:
            found = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        begin = 0
        while begin < len(found) and self._logged < LINES:
            end = found.find(b"\n", begin) + 1
            self._keep(found[begin : end or len(found)])
            if end:
                self._end_line()
            begin = end or len(found)
        self._skip(found[begin:])
        return bool(found)

    def _skip(self, found: bytes) -> None:
        """Count lines at little cost: a child that floods must not keep the event loop busy."""
        *ended, rest = found.rsplit(b"\n", 1)
        if ended:
            self._left_out += found.count(b"\n")
            self._line.clear()
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        # One byte more than is shown tells that there is more.
        self._line += part[: LINE_CHARACTERS + 1 - len(self._line)]

    def _end_line(self) -> None:
        text = escaped(self._line.removesuffix(b"\n").decode(errors="backslashreplace"))
        self._line.clear()
        self.say(f": {text[:LINE_CHARACTERS]}…" if len(text) > LINE_CHARACTERS else f": {text}")

    def _renew(self) -> None:
        """Begin a new period."""
        if self._renewal is not None:
            self._renewal.cancel()
        if self._left_out:
            _log.info("server %s: %d more lines are left out", self._name, self._left_out)
        self._logged = self._left_out = 0
        self._renewal = None


whose: ContextVar[ChildLog] = ContextVar("whose")
"""The log of the child that a task speaks to."""


class NoContent(logging.Filter):
    """For loggers of the SDK whose tracebacks hold parts of messages: tells only that a child's line is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace what would show content; leave the rest."""
        if not record.exc_info:
            return True
        kind = record.exc_info[0]
        record.exc_info = record.exc_text = None
        child = whose.get(None)
        if child is None or kind is None or not issubclass(kind, ValueError):
            return True
        child.say(" sent a line that is no message")
        return False
