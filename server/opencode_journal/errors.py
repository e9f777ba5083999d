"""What a person or a caller is told; every message is one line that names the next step.

JournalError
├── NotKept            what must outlive the server cannot be written now
└── CursorError        a cursor does not say what is new
    ├── NotACursor     it is none of ours
    ├── AnotherEpoch   it was given out by another journal
    └── TooOld         what followed it was pruned
"""

from __future__ import annotations


class JournalError(Exception):
    """Base of all that the journal refuses."""


class NotKept(JournalError):
    """It cannot be kept, so it was not accepted."""


class CursorError(JournalError):
    """What is new since this cursor is not known: begin anew without one."""


class NotACursor(CursorError):
    """The text is no cursor."""


class AnotherEpoch(CursorError):
    """The journal that gave it out is gone, or cannot be read now."""


class TooOld(CursorError):
    """Some of what followed it was pruned."""
