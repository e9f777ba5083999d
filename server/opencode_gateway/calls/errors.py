"""Why a tool call has no result: tool errors in the words that the person on the phone reads.

ToolError (fastmcp)
└── CallError      and what the audit log calls it
    ├── Denied     not allowed; nothing was done
    ├── TimedOut   given up here; what it started goes on
    ├── Unfinished the service ends; what it started goes on
    ├── Asked      the server asked a question instead; whether anything was done is not known
    ├── NotMade    the server behind the gateway does not start; nothing was done
    └── Lost       the server behind the gateway ended or hung; whether it was done is not known
"""

from __future__ import annotations

from fastmcp.exceptions import ToolError


class NotStartedError(RuntimeError):
    """A child cannot be started or spoken to: no call has reached it. Its text is the log's, no caller's."""


class CallError(ToolError):
    """The gateway itself has no result for a call."""

    outcome = "failed"


class Denied(CallError):
    """The caller may not do this; nothing was done."""

    outcome = "refused"


class TimedOut(CallError):
    """The call took too long to be waited for."""

    outcome = "timeout"


class Unfinished(CallError):
    """The service ends before the call did."""

    outcome = "unfinished"


class NotMade(CallError):
    """There is no server to make the call to."""


class Lost(CallError):
    """The server's answer will not come."""


class AskedBack(CallError):
    """The server wants to know something of the caller first."""

    outcome = "tool-error"
