"""What a fleet knows of agents, in its own words: sessions, messages, asks, what runs. No wire format is here.

Strings come from other machines: bounded and of the right type, not yet cleaned for showing. Times are epoch seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from opencode_fleet.files import File

MAX_ASK_SHOWN: Final = 100_000
"""Characters of an ask. It is never cut, as nobody can approve what they do not see; a larger one is not offered."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def is_id(value: object) -> bool:
    """Whether `value` can be an id of a session, message or ask: ids go into URLs."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation of one directory; `parent_id` is set for a subagent's."""

    id: str
    directory: str
    title: str = ""
    parent_id: str | None = None
    created: float = 0.0
    updated: float = 0.0
    is_archived: bool = False
    """Whether the person put it away."""
    agent: str = ""
    """The agent (mode) that it is in, as `plan`; empty where that is not told."""
    model: str = ""
    """`PROVIDER/MODEL`; empty where that is not told."""
    variant: str = ""
    """The model's variant, as how much it reasons; empty where it is the usual one."""
    project: str = ""
    cost: float = 0.0
    """Dollars, as the agent reckons them; 0 where that is not told."""
    tokens: int = 0
    """That went to the model and came from it, without what was cached; 0 where that is not told."""
    files: int = 0
    additions: int = 0
    deletions: int = 0
    """How many files and lines it changed; 0 where that is not told."""
    undone_from: str = ""
    """The message from which on all is taken back, until the next prompt; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a session that is not idle does: it works (or waits for a person), or waits for the model's service."""

    kind: Literal["busy", "retry"] = "busy"
    attempt: int = 0
    message: str = ""

    def describe(self) -> str:
        """Return why the model's service is asked again, not yet cleaned."""
        return f"the model's service fails, attempt {self.attempt}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """The agent asks whether it may."""

    id: str
    session_id: str
    action: str
    """The tool's own word, as `bash` or `edit`."""
    patterns: tuple[str, ...] = ()
    """What it is for, in pieces, as the agent gave them."""
    is_split: bool = False
    """Whether `patterns` are only pieces of what `details` show whole."""
    details: tuple[tuple[str, str], ...] = ()
    """The whole of what would run or change: pairs of label and text."""
    always: tuple[str, ...] = ()
    """What `always` would also allow."""
    always_means: str = ""
    """For how long and where, in words for people."""
    always_refused: str = ""
    """Why `always` is not to be had, if it is not."""
    message_id: str = ""
    """The message whose tool call waits."""
    is_whole: bool = True
    """Whether the agent told all that it is about; else it cannot be shown, and so not be approved here."""

    @property
    def size(self) -> int:
        """Characters that showing it whole takes, about."""
        if not self.is_whole:
            return MAX_ASK_SHOWN + 1
        texts = (self.action, *self.patterns, *self.always, *(part for pair in self.details for part in pair))
        return sum(map(len, texts))


@dataclass(frozen=True, slots=True)
class Option:
    """One offered answer; `value` is what the agent wants to be told."""

    label: str
    description: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionItem:
    """One of a question's questions."""

    question: str
    options: tuple[Option, ...] = ()
    multiple: bool = False
    key: str = ""
    """How the agent calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The agent asks the person."""

    id: str
    session_id: str
    items: tuple[QuestionItem, ...] = ()
    message_id: str = ""

    @property
    def size(self) -> int:
        """Characters that showing it whole takes, about."""
        return sum(
            len(item.question) + sum(len(option.label) + len(option.description) for option in item.options)
            for item in self.items
        )


Ask = Permission | Question


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call: `title` says in a few words what it is about."""

    name: str
    title: str = ""
    status: Literal["pending", "running", "completed", "error"] = "running"
    output: str = ""
    error: str = ""
    diff: str = ""
    """What it changed, as far as the message was fetched by itself (`Agent.message`): lists leave it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a message."""

    id: str
    kind: Literal["text", "reasoning", "tool", "file"]
    text: str = ""
    """Text or reasoning; of a file its name."""
    changed: float = 0.0
    """When it began or ended, as far as it tells."""
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message with its parts. An assistant's without `completed` is unfinished."""

    id: str
    session_id: str
    role: Literal["user", "assistant", "note"]
    """A note is what the agent's program itself put into the conversation."""
    parts: tuple[Part, ...] = ()
    created: float = 0.0
    completed: float | None = None
    ended: Literal["", "well", "for-tools", "broken", "failed"] = ""
    """How an assistant's ended: the model said that it is done, wants tools, stopped without a word, or failed."""
    answers: str = ""
    """The id of the user's message that it answers, where that is told."""
    error: str = ""
    """Why it failed, one line."""
    is_stopped: bool = False
    """Whether that is that somebody stopped it."""
    retry: str = ""
    """Why the model is asked again for it, one line."""
    agent: str = ""
    model: str = ""
    variant: str = ""
    is_summary: bool = False
    """A compaction's summary of what was before: not an answer."""

    @property
    def text(self) -> str:
        """All of its text, without reasoning."""
        return "\n\n".join(part.text for part in self.parts if part.kind == "text" and part.text)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A person's message on its way: with the same id it is the same prompt however often it is posted."""

    session_id: str
    id: str
    text: str
    agent: str = ""
    model: str = ""
    variant: str = ""
    """The agent, model and variant that the session is in or was just switched to; empty if not told."""
    delivery: Literal["steer", "queue"] = "steer"
    """Into a session that runs: into its turn, or after it."""
    files: tuple[File, ...] = ()
    """That go with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What an agent's records say of the turn that a prompt started."""

    is_stored: bool
    """The prompt stands in the conversation."""
    is_queued: bool = False
    """It was accepted and has not begun."""
    answers: tuple[Message, ...] = ()
    """The agent's messages since the prompt, oldest first, without summaries."""
    is_interrupted: bool = False
    """The records themselves say that it was broken off."""
    problem: str = ""
    """Why the turn failed, where the records say so outside of its messages."""
    is_shared: bool = False
    """The answers are to a later prompt as well: the agent took both together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A directory that an agent works in and may be driven in."""

    directory: str
    name: str = ""
    """What its instance is called, where somebody there chose a name."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A directory that an agent works in since somebody asked for it from afar; `is_new`: since just now."""

    directory: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Everything that runs or waits at one agent."""

    statuses: dict[str, Status]
    """By session; one that is not in it is idle."""
    asks: list[Ask]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a newly connected agent answered."""

    workplaces: list[Workplace]
    runs: Runs
    sessions: list[Session]
    """The newest of each workplace, newest first, and all that run."""


Result = Literal["done", "needs-permission", "needs-answer", "running", "queued", "lost", "failed"]
"""`queued`: it begins after the turn that runs. `lost`: nothing is heard of the turn, which may go on or not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn stands; no text in it is cleaned yet.

    `text` is what the agent said since the prompt; `problem` why it failed, or why nothing is heard of it any more.
    """

    result: Result
    session_id: str
    text: str = ""
    problem: str = ""
    asks: tuple[Ask, ...] = ()
    note: str = ""
    """What the person should know besides, in our own words."""
    when: Literal["now", "steer", "queue"] = "now"
    """At which moment its message came: into an idle session, into the turn that ran, or after it."""
