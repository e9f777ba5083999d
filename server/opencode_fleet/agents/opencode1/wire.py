"""The parts of OpenCode 1's HTTP API that we read, validated, and what they are in the fleet's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from opencode_fleet import model as fleet
from opencode_fleet.agents.shapes import (
    MILLISECONDS,
    NO_TOKENS,
    Id,
    Mapping,
    Number,
    OfferedAgent,
    OptionalNumber,
    Short,
    Text,
    Tokens,
    Wire,
    telling_argument,
)


class Health(Wire):
    """The answer of `/global/health`."""

    healthy: bool = True
    version: str = Field(min_length=1, max_length=64)


class Location(Wire):
    """The answer of `/path`: where this OpenCode works."""

    directory: str = Field(min_length=1, max_length=4096)


class Agent(OfferedAgent):
    """An agent (mode)."""

    name: Short = Field(min_length=1)


class Command(Wire):
    """A command."""

    name: Short = Field(min_length=1)


class _Provider(Wire):
    id: Short = ""
    models: Mapping = Field(default_factory=dict)


class Providers(Wire):
    """The models that can be used, by those who serve them."""

    providers: list[_Provider]

    def names(self) -> list[str]:
        """Return them as `PROVIDER/MODEL`."""
        return [f"{each.id}/{model}" for each in self.providers if each.id for model in each.models]


class _Model(Wire):
    # A session's record calls it `id`, a message `modelID`.
    id: Short = ""
    model_id: Short = Field("", alias="modelID")
    provider_id: Short = Field("", alias="providerID")
    variant: Short = ""

    def chosen_variant(self) -> str:
        return "" if self.variant == "default" else self.variant

    def name(self) -> str:
        model_id = self.id or self.model_id
        return f"{self.provider_id}/{model_id}" if self.provider_id and model_id else ""


_NO_MODEL = _Model(id="", modelID="", providerID="")
OneModel = Annotated[_Model, BeforeValidator(lambda value: value if isinstance(value, dict | _Model) else _NO_MODEL)]


class _SessionTime(Wire):
    created: Number = 0
    updated: Number = 0
    archived: OptionalNumber = None


class _Summary(Wire):
    """How much a session changed; before OpenCode 1.18 alone, as later it is told of messages only."""

    files: Number = 0
    additions: Number = 0
    deletions: Number = 0


OneSummary = Annotated[_Summary, BeforeValidator(lambda value: value if isinstance(value, dict) else {})]


class _Revert(Wire):
    message_id: Short = Field("", alias="messageID")


_NO_REVERT = _Revert(messageID="")


class Session(Wire):
    """A session; `parent_id` is set for a subagent's. Times in milliseconds."""

    id: Id
    directory: Text = Field("", max_length=4096)
    title: Short = ""
    parent_id: Id | None = Field(None, alias="parentID")
    time: _SessionTime = _SessionTime()
    agent: Short = ""
    model: OneModel = _NO_MODEL
    project_id: Short = Field("", alias="projectID")
    cost: Number = 0
    tokens: Tokens = NO_TOKENS
    summary: OneSummary = _Summary()
    revert: Annotated[_Revert, BeforeValidator(lambda v: v if isinstance(v, dict | _Revert) else _NO_REVERT)] = (
        _NO_REVERT
    )

    def domain(self) -> fleet.Session:
        """Return it in the fleet's words."""
        return fleet.Session(
            id=self.id,
            directory=self.directory,
            title=self.title,
            parent_id=self.parent_id,
            created=self.time.created / MILLISECONDS,
            updated=self.time.updated / MILLISECONDS,
            is_archived=bool(self.time.archived),
            agent=self.agent,
            model=self.model.name(),
            variant=self.model.chosen_variant(),
            project=self.project_id,
            cost=self.cost,
            tokens=self.tokens.total,
            files=int(self.summary.files),
            additions=int(self.summary.additions),
            deletions=int(self.summary.deletions),
            undone_from=self.revert.message_id,
        )


class Status(Wire):
    """What a session does: `idle`, `busy` or `retry`."""

    type: Short = "busy"
    attempt: Number = 0
    message: Short = ""

    def domain(self) -> fleet.Status | None:
        """Return it in the fleet's words; None: idle."""
        if self.type == "idle":
            return None
        return fleet.Status("retry" if self.type == "retry" else "busy", int(self.attempt), self.message)


class _MessageTime(Wire):
    created: Number = 0
    completed: OptionalNumber = None


class MessageError(Wire):
    """Why a turn failed."""

    name: Text = ""
    data: Mapping = Field(default_factory=dict)

    @property
    def is_stop(self) -> bool:
        """Whether somebody stopped it."""
        return self.name == "MessageAbortedError"

    def describe(self) -> str:
        """Return one line, not yet cleaned."""
        if self.is_stop:
            return f"it was stopped ({self.name})"
        message = self.data.get("message")
        return f"{self.name}: {message}" if isinstance(message, str) and message else self.name or "unknown error"


class MessageInfo(Wire):
    """The head of a message."""

    id: Id
    role: Text = ""
    session_id: Text = Field("", alias="sessionID")
    parent_id: Text = Field("", alias="parentID")
    time: _MessageTime = _MessageTime()
    finish: Text = ""
    error: MessageError | None = None
    agent: Short = ""
    mode: Short = ""
    model: OneModel = _NO_MODEL
    model_id: Short = Field("", alias="modelID")
    provider_id: Short = Field("", alias="providerID")
    summary: Any = None

    @property
    def is_summary(self) -> bool:
        """Whether it is a compaction's summary; a user's message may have an object of that name, which is none."""
        return self.role == "assistant" and (self.summary is True or self.mode == "compaction")

    @property
    def ended(self) -> Literal["", "well", "for-tools", "broken", "failed"]:
        """How an assistant's message ended."""
        if self.error is not None:
            return "failed"
        if self.finish == "stop":
            return "well" if self.time.completed is not None else ""
        if self.finish == "unknown":
            return "broken"
        return "for-tools" if self.finish else ""

    def model_name(self) -> str:
        """Return `PROVIDER/MODEL`, empty where it is not told."""
        return self.model.name() or (
            f"{self.provider_id}/{self.model_id}" if self.provider_id and self.model_id else ""
        )


class _PartTime(Wire):
    start: Number = 0
    end: Number = 0

    @property
    def last(self) -> float:
        return max(self.start, self.end) / MILLISECONDS


class _ToolState(Wire):
    status: Text = ""
    input: Mapping = Field(default_factory=dict)
    output: Text = ""
    error: Text = ""
    title: Text = ""
    metadata: Mapping = Field(default_factory=dict)
    time: _PartTime = _PartTime()

    def diff(self) -> str:
        found = self.metadata.get("diff")
        return found if isinstance(found, str) else ""


class Part(Wire):
    """One part of a message; which fields matter depends on `type`."""

    id: Text = ""
    message_id: Text = Field("", alias="messageID")
    session_id: Text = Field("", alias="sessionID")
    type: Text = ""
    text: Text = ""
    synthetic: bool = False
    tool: Text = ""
    state: _ToolState = _ToolState()
    filename: Text = ""
    time: _PartTime = _PartTime()

    def call(self) -> fleet.ToolCall:
        """Return the tool call that it is."""
        status = self.state.status
        return fleet.ToolCall(
            name=self.tool,
            title=self.state.title or telling_argument(self.state.input),
            status=status if status in {"pending", "running", "completed"} else "error",  # type: ignore[arg-type] # one of these
            output=self.state.output,
            error=self.state.error,
            diff=self.state.diff(),
        )

    def domain(self) -> fleet.Part | None:
        """Return it in the fleet's words; None: nothing to show."""
        match self.type:
            case "text" if not self.synthetic:
                return fleet.Part(id=self.id, kind="text", text=self.text, changed=self.time.last)
            case "reasoning":
                return fleet.Part(id=self.id, kind="reasoning", text=self.text, changed=self.time.last)
            case "tool":
                return fleet.Part(id=self.id, kind="tool", call=self.call(), changed=self.state.time.last)
            case "file":
                return fleet.Part(id=self.id, kind="file", text=self.filename)
        return None


class Message(Wire):
    """A message with its parts."""

    info: MessageInfo
    parts: list[Part] = Field(default_factory=list)

    def domain(self) -> fleet.Message:
        """Return it in the fleet's words."""
        info = self.info
        parts = tuple(part for each in self.parts if (part := each.domain()) is not None)
        return fleet.Message(
            id=info.id,
            session_id=info.session_id,
            role=self._role(),
            parts=parts,
            created=info.time.created / MILLISECONDS,
            completed=info.time.completed / MILLISECONDS if info.time.completed is not None else None,
            ended=info.ended if info.role == "assistant" else "",
            answers=info.parent_id,
            error=info.error.describe() if info.error else "",
            is_stopped=info.error is not None and info.error.is_stop,
            agent=info.agent or info.mode,
            model=info.model_name(),
            variant=info.model.chosen_variant(),
            is_summary=info.is_summary,
        )

    def _role(self) -> Literal["user", "assistant", "note"]:
        if self.info.role == "assistant":
            return "assistant"
        # What OpenCode itself puts in, as after a compaction, stands in a user's message too.
        by_person = any(part.type in {"text", "file"} and not part.synthetic for part in self.parts)
        return "user" if self.info.role == "user" and (by_person or not self.parts) else "note"


class Event(Wire):
    """One event of the stream `/event`."""

    type: str = Field("", max_length=100)
    properties: Mapping = Field(default_factory=dict)
