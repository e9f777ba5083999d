"""What the pages show, as the OpenCode server says it: JSON over the wire, and the same where it is in one process.

Every string from another machine was revealed (`opencode_common.reveal`) by whoever made the document.
Times are epoch seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

INBOX: Final = "opencode://inbox"
"""The resource that is an `InboxDocument`."""
ASK: Final = "opencode://asks/{handle}"
"""The resource that is an `AskDocument`: by its handle, as `a3`."""
ASK_OF: Final = "opencode://asks/{instance}/{id}"
"""The same by the instance's name and the ask's own id, percent-encoded: for whoever knows no handle."""
JSON: Final = "application/json"

Kind = Literal["permission", "question"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AskSummary(_Document):
    """What an agent waits for, in a line."""

    handle: str
    id: str
    """The agent's own id of it."""
    kind: Kind
    instance: str
    session: str = ""
    """The handle of the session that it is about, as `s12`."""
    title: str = ""
    """Of that session."""
    summary: str = ""
    since: float
    away: bool = False
    """Whether its machine is, so that nothing can be decided now."""


class RunningSession(_Document):
    """A turn that runs."""

    instance: str
    session: str = ""
    title: str = ""
    since: float | None = None
    note: str = ""
    """As why the model's service is asked again."""


class EndedTurn(_Document):
    """What is over."""

    result: str
    """`done`, `failed`, `stopped`, `away`, `expired`."""
    instance: str
    session: str = ""
    title: str = ""
    problem: str = ""
    at: float


class InboxDocument(_Document):
    """What needs the person, what runs and what ended, over all instances."""

    asks: tuple[AskSummary, ...] = ()
    """Oldest first."""
    asks_left_out: int = 0
    running: tuple[RunningSession, ...] = ()
    running_left_out: int = 0
    ended: tuple[EndedTurn, ...] = ()
    """The last ones, newest first."""
    instances: int = 0
    """How many are there."""
    away: int = 0
    """Of these, the ones that are not connected."""
    problem: str = ""
    """Why this may not be all, in words for people."""


class AskPart(_Document):
    """One labelled part of what would run or change."""

    label: str
    text: str
    kind: Literal["text", "command", "diff"] = "text"
    """`diff`: unified; each line is shown by its first character."""


class Choice(_Document):
    """One offered answer."""

    label: str
    description: str = ""


class AskItem(_Document):
    """One of a question's questions."""

    question: str
    options: tuple[Choice, ...] = ()
    multiple: bool = False


class AskDocument(AskSummary):
    """All of what an agent waits for, and what a decision on it would mean."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of all that is shown: another one stands for another ask, whatever its id. A decision is bound to it."""
    state: Literal["open", "settled", "away"] = "open"
    """`away`: its machine is, and only what the journal has of it is here."""
    settled: str = ""
    """How and by whom, in words for people, as far as known."""
    whole: bool = True
    """Whether all of it is here. Otherwise it can be rejected alone."""
    directory: str = ""
    subagent: str = ""
    """The subagent's session, where one asks."""
    parts: tuple[AskPart, ...] = ()
    """Of a permission, in the order to show them."""
    always: tuple[str, ...] = ()
    """What `always` would also allow."""
    always_means: str = ""
    """For how long, where, and what its patterns let through, in words for people."""
    always_refused: str = ""
    """Why `always` is not to be had; empty: it is."""
    reason_is_message: bool = False
    """Whether what to do instead reaches the agent as a message, which takes the capability `drive`."""
    items: tuple[AskItem, ...] = ()
    """Of a question."""
