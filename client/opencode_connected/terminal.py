"""The terminal that OpenCode's full-screen interface borrows, put in order when OpenCode could not do it itself."""

from __future__ import annotations

import os
import termios
from contextlib import suppress

_STDIN, _STDOUT = 0, 1  # not sys.stdin: that is None where it was closed
_LEAVE_FULL_SCREEN = (
    "\x1b[?1049l"  # back to the screen before
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l"  # no mouse reports
    "\x1b[?1004l\x1b[?2004l"  # no focus reports, no bracketed paste
    "\x1b[<u\x1b[>4;0m"  # plain keyboard
    "\x1b[?25h\x1b[0m"  # cursor, colours
)


class Terminal:
    """The controlling terminal's state as it was when this object was made."""

    def __init__(self) -> None:
        self._attributes = termios.tcgetattr(_STDIN)

    @staticmethod
    def is_there() -> bool:
        """Tell whether stdin and stdout are a terminal, which a full-screen program needs."""
        return os.isatty(_STDIN) and os.isatty(_STDOUT)

    def restore(self) -> None:
        """Leave full-screen mode and put the old state back, if the terminal is still there and still ours."""
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(_STDIN) != os.getpgrp():
                return  # changing it from the background would stop this process
            os.write(_STDOUT, _LEAVE_FULL_SCREEN.encode())
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._attributes)
