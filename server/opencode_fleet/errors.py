"""What can go wrong, as a tree; every message is written for the person on the phone and names the next step.

What a message repeats of another machine's words stands inside `text.quote`.

FleetError                 anything a person can mend; its text becomes the tool error
├── SettingsError          a bad environment variable
├── NoSuchInstance         no instance, or several, of that name
├── InstanceError          one OpenCode did not do what was asked
│   ├── Unreachable        nothing listens there (`refused`), or the connection broke
│   │   └── AgentGone      its machine answers, and its agent does not run there
│   ├── Unresponsive       it accepted the connection and did not answer in time
│   ├── Unauthorized       it wants a password that we do not have
│   ├── Forbidden          the owner of its machine does not let this through
│   ├── NotFound           it answered 404: the session or ask is gone
│   ├── Rejected           it answered another HTTP error
│   └── BadAnswer          what it answered is not OpenCode's API, or too large
└── Refused                we would not do it (wrong session, bad argument)
    ├── Busy               not now: the session runs
    └── NotOpen            no such ask waits (any more)
"""

from __future__ import annotations

from opencode_common.text import one_line


class FleetError(Exception):
    """Base of all errors that a person can mend.

    `is_doubtful` tells whether a change that was asked for may have been made all the same.
    """

    is_doubtful = False


class SettingsError(FleetError):
    """An environment variable or a file that one names has a bad value."""


class NoSuchInstance(FleetError):
    """The name fits no instance, or several."""


class Refused(FleetError):
    """The request makes no sense now; nothing was sent."""


class Busy(Refused):
    """The session runs, here or in another process, and takes the message once it does not."""


class NotOpen(Refused):
    """No ask `ask_id` waits at `where`; `told`: what is known of it, and the next step."""

    def __init__(self, where: str, ask_id: str, told: str) -> None:
        super().__init__(f"{where} does not wait for {one_line(ask_id, 80)!r}: {told}")
        self.where = where
        self.ask_id = ask_id
        self.told = told

    def called(self, name: str) -> NotOpen:
        """Return it with the name that the person knows the ask by."""
        return NotOpen(self.where, name, self.told)


class InstanceError(FleetError):
    """One OpenCode instance did not do what was asked."""


class Unreachable(InstanceError):
    """No connection: `refused` says that nothing listens there (the tunnel or OpenCode is gone)."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.is_doubtful = not refused


class AgentGone(Unreachable):
    """HTTP 502 or 503: the guard on its machine answers, and the agent behind it does not."""


class Unresponsive(InstanceError):
    """The connection stands but no answer came in time."""

    is_doubtful = True


class Unauthorized(InstanceError):
    """HTTP 401: this OpenCode was started with a password."""


class Forbidden(InstanceError):
    """HTTP 403: the guard on its machine refused; the message says what and why."""


class NotFound(InstanceError):
    """HTTP 404: the session, message or ask does not exist (any more)."""


class Rejected(InstanceError):
    """Another HTTP error (`status`), with OpenCode's own message; `is_silent` if it gave none."""

    def __init__(self, message: str, *, status: int = 0, is_silent: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_silent = is_silent
        self.is_doubtful = status >= 500  # it broke off in the middle of it


class BadAnswer(InstanceError):
    """The answer is not OpenCode's API: HTML, a redirect, no JSON, wrong shapes, or beyond the size limit."""

    is_doubtful = True
