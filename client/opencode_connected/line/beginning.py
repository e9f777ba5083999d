"""From the log-in to the first word of what the relay runs for us: our own command, or a provisioned relay's."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from opencode_connected.line.errors import NotBegun

if TYPE_CHECKING:
    from collections.abc import Callable


class Beginning:
    """The beginning of one ssh session. An account's shell may never get as far as our command, and say nothing."""

    def __init__(self, seconds: float | None, on_late: Callable[[NotBegun], None]) -> None:
        """`on_late` is called if there is no word `seconds` after the log-in (None: it may take any time)."""
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None
        self.nonce = secrets.token_hex(16)
        """By it our command is told from whatever else an account may run."""
        self.is_over = False
        """The first word was heard."""

    def logged_in(self) -> None:
        """Take note of a log-in. Where there are hosts on the way, the last one counts."""
        self.stop()
        if self._seconds is not None and not self.is_over:
            self._timer = self._loop.call_later(self._seconds, self._on_late, NotBegun(self._seconds))

    def end(self) -> None:
        """Take note of the first word."""
        self.is_over = True
        self.stop()

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
