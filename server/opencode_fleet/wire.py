"""The parts of OpenCode's HTTP API that we read, validated; unknown fields are ignored."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

# Identifiers go into URLs: nothing but what OpenCode's own look like.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
ID = TypeAdapter(Id)
MAX_ASK_SHOWN = 100_000
"""Characters of an ask. It is never cut, as nobody can approve what they do not see; a larger one is not offered."""
Text = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")]
# What is kept in memory of every session and shown on one line.
Short = Annotated[str, BeforeValidator(lambda value: value[:1000] if isinstance(value, str) else "")]
Mapping = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
Number = Annotated[float, BeforeValidator(lambda value: value if isinstance(value, int | float) else 0.0)]
Strings = Annotated[
    list[str], BeforeValidator(lambda v: [s for s in v if isinstance(s, str)] if isinstance(v, list) else [])
]


def is_id(value: object) -> bool:
    """Whether `value` can be an id of OpenCode's."""
    try:
        ID.validate_python(value)
    except ValidationError:
        return False
    return True


class Wire(BaseModel):
    """Base: frozen, tolerant of more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class SessionTime(Wire):
    """Milliseconds since the epoch."""

    created: Number = 0
    updated: Number = 0
    archived: Number | None = None


class Session(Wire):
    """A session; `parent_id` is set for a subagent's."""

    id: Id
    directory: Text = Field("", max_length=4096)
    title: Short = ""
    parent_id: Id | None = Field(None, alias="parentID")
    time: SessionTime = SessionTime()

    @property
    def is_archived(self) -> bool:
        """Whether the person put it away."""
        return bool(self.time.archived)


class Status(Wire):
    """What a session does: `idle`, `busy` or `retry` (the model's service failed; `next` is epoch milliseconds)."""

    type: Short = "busy"
    attempt: Number = 0
    message: Short = ""
    next: Number = 0

    def describe(self) -> str:
        """Return why the model's service is asked again, not yet cleaned."""
        return f"the model's service fails, attempt {self.attempt:g}: {self.message}"


class Asking(Wire):
    """What both kinds of asks have."""

    id: Id
    session_id: Id = Field(alias="sessionID")

    @cached_property
    def size(self) -> int:
        """Characters that showing it whole would take, about."""
        return len(self.model_dump_json())


class Permission(Asking):
    """The agent asks whether it may."""

    permission: Text = ""
    patterns: Strings = []
    metadata: Mapping = {}
    always: Strings = []


class Option(Wire):
    """One offered answer."""

    label: Text = ""
    description: Text = ""


class QuestionItem(Wire):
    """One of a question's questions."""

    question: Text = ""
    header: Text = ""
    options: list[Option] = []
    multiple: bool = False


class Question(Asking):
    """The agent asks the person."""

    questions: list[QuestionItem] = []


Ask = Permission | Question


class MessageTime(Wire):
    """Milliseconds since the epoch; an assistant's message without `completed` is unfinished."""

    created: Number = 0
    completed: Number | None = None


class MessageError(Wire):
    """Why a turn failed."""

    name: Text = ""
    data: Mapping = {}

    def describe(self) -> str:
        """Return one line, not yet cleaned."""
        message = self.data.get("message")
        return f"{self.name}: {message}" if isinstance(message, str) and message else self.name or "unknown error"


class MessageInfo(Wire):
    """The head of a message."""

    id: Id
    role: Text = ""
    session_id: Text = Field("", alias="sessionID")
    parent_id: Text = Field("", alias="parentID")
    time: MessageTime = MessageTime()
    finish: Text = ""
    error: MessageError | None = None


class ToolState(Wire):
    """A tool call's state: `pending`, `running`, `completed`, `error`."""

    status: Text = ""
    input: Mapping = {}
    output: Text = ""
    error: Text = ""
    title: Text = ""


class Part(Wire):
    """One part of a message; which fields matter depends on `type`."""

    id: Text = ""
    message_id: Text = Field("", alias="messageID")
    session_id: Text = Field("", alias="sessionID")
    type: Text = ""
    text: Text = ""
    synthetic: bool = False
    tool: Text = ""
    state: ToolState = ToolState()
    filename: Text = ""


class Message(Wire):
    """A message with its parts."""

    info: MessageInfo
    parts: list[Part] = []

    @property
    def text(self) -> str:
        """All of its text, without reasoning and without what OpenCode put in itself."""
        return "\n".join(p.text for p in self.parts if p.type == "text" and p.text and not p.synthetic)


class Health(Wire):
    """The answer of `/global/health`."""

    healthy: bool = True
    version: str = Field(min_length=1, max_length=64)


class Location(Wire):
    """The answer of `/path`: where this OpenCode works."""

    directory: str = Field(min_length=1, max_length=4096)


class Event(Wire):
    """One event of the stream `/event`."""

    type: str = Field(max_length=100)
    properties: Mapping = {}


EVENT = TypeAdapter(Event)
