"""The parts of OpenCode 2's HTTP API that we read, validated: sessions, messages, what its calls answer."""

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


def _dict(value: object) -> object:
    return value if isinstance(value, dict | Wire) else {}


def _dict_or_none(value: object) -> object:
    return value if isinstance(value, dict | Wire) else None


class _ModelReference(Wire):
    id: Short = ""
    provider_id: Short = Field("", alias="providerID")

    def name(self) -> str:
        return f"{self.provider_id}/{self.id}" if self.provider_id and self.id else ""


ModelReference = Annotated[_ModelReference, BeforeValidator(_dict)]


class Agent(OfferedAgent):
    """An agent (mode)."""

    id: Short = Field(min_length=1)


class Command(Wire):
    """A command."""

    name: Short = Field(min_length=1)


class Model(_ModelReference):
    """A model."""

    id: Short = Field(min_length=1)
    provider_id: Short = Field(min_length=1, alias="providerID")
    enabled: bool = True


class _Location(Wire):
    directory: Text = Field("", max_length=4096)


class _SessionTime(Wire):
    created: Number = 0
    updated: Number = 0
    archived: OptionalNumber = None


class _Revert(Wire):
    message_id: Short = Field("", alias="messageID")


class Session(Wire):
    """A session; `parent_id` is set for a subagent's. Times in milliseconds."""

    id: Id
    parent_id: Id | None = Field(None, alias="parentID")
    project_id: Short = Field("", alias="projectID")
    title: Short = ""
    agent: Short = ""
    model: ModelReference = _ModelReference(id="", providerID="")
    location: _Location
    time: _SessionTime = _SessionTime()
    cost: Number = 0
    tokens: Tokens = NO_TOKENS
    revert: Annotated[_Revert, BeforeValidator(_dict)] = _Revert(messageID="")

    def domain(self) -> fleet.Session:
        """Return it in the fleet's words."""
        return fleet.Session(
            id=self.id,
            directory=self.location.directory,
            title=self.title,
            parent_id=self.parent_id,
            created=self.time.created / MILLISECONDS,
            updated=self.time.updated / MILLISECONDS,
            is_archived=bool(self.time.archived),
            agent=self.agent,
            model=self.model.name(),
            project=self.project_id,
            cost=self.cost,
            tokens=self.tokens.total,
            undone_from=self.revert.message_id,
        )


class Problem(Wire):
    """Why something failed."""

    type: Short = ""
    message: Text = ""

    @property
    def is_interruption(self) -> bool:
        """Whether a person or the end of its program broke it off."""
        return self.type == "aborted"

    def describe(self) -> str:
        """Return one line, not yet cleaned."""
        if self.is_interruption:
            return "it was interrupted"
        return f"{self.type}: {self.message}" if self.message else self.type or "unknown error"


OneProblem = Annotated[Problem | None, BeforeValidator(_dict_or_none)]


class Retry(Wire):
    """The model is asked again."""

    attempt: Number = 0
    error: OneProblem = None

    def describe(self) -> str:
        """Return one line, not yet cleaned."""
        why = self.error.describe() if self.error else "it failed"
        return f"attempt {int(self.attempt)}: {why}"


class _Content(Wire):
    type: Text = ""
    text: Text = ""


def _contents(value: object) -> object:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class _Changed(Wire):
    patch: Text = ""


class _ToolMetadata(Wire):
    files: Annotated[list[_Changed], BeforeValidator(_contents)] = Field(default_factory=list)


class _ToolState(Wire):
    status: Text = ""
    input: Mapping = Field(default_factory=dict)
    content: Annotated[list[_Content], BeforeValidator(_contents)] = Field(default_factory=list)
    error: OneProblem = None
    metadata: Annotated[_ToolMetadata, BeforeValidator(_dict)] = Field(default_factory=_ToolMetadata)


class _PartTime(Wire):
    created: Number = 0
    ran: Number = 0
    completed: Number = 0

    @property
    def last(self) -> float:
        return max(self.created, self.ran, self.completed) / MILLISECONDS


class Part(Wire):
    """One piece of an assistant's message: `text`, `reasoning` or `tool`."""

    type: Text = ""
    text: Text = ""
    id: Text = ""
    name: Short = ""
    state: Annotated[_ToolState, BeforeValidator(_dict)] = Field(default_factory=_ToolState)
    time: Annotated[_PartTime, BeforeValidator(_dict)] = Field(default_factory=_PartTime)

    def call(self) -> fleet.ToolCall:
        """Return the tool call that it is."""
        return fleet.ToolCall(
            name=self.name,
            title=telling_argument(self.state.input),
            status=_STATUSES.get(self.state.status, "error"),
            output="\n".join(each.text for each in self.state.content if each.text),
            error=self.state.error.message or self.state.error.type if self.state.error else "",
            diff="\n".join(each.patch for each in self.state.metadata.files if each.patch),
        )


_STATUSES: dict[str, Literal["pending", "running", "completed", "error"]] = {
    "streaming": "pending",
    "running": "running",
    "completed": "completed",
}


class _File(Wire):
    name: Short = ""


class _MessageTime(Wire):
    created: Number = 0
    completed: OptionalNumber = None


class Message(Wire):
    """One entry of a conversation; which fields matter depends on `type`."""

    id: Id
    type: Text = ""
    time: Annotated[_MessageTime, BeforeValidator(_dict)] = Field(default_factory=_MessageTime)
    text: Text = ""
    description: Short = ""
    files: Annotated[list[_File], BeforeValidator(_contents)] = Field(default_factory=list)
    content: Annotated[list[Part], BeforeValidator(_contents)] = Field(default_factory=list)
    finish: Text = ""
    error: OneProblem = None
    retry: Annotated[Retry | None, BeforeValidator(_dict_or_none)] = None
    agent: Short = ""
    model: ModelReference = _ModelReference(id="", providerID="")
    outcome: Text = ""
    status: Text = ""
    summary: Text = ""
    command: Text = ""
    name: Short = ""

    @property
    def ended(self) -> Literal["", "well", "for-tools", "broken", "failed"]:
        """How an assistant's message ended; while the model is asked again it has not."""
        if self.retry is not None:
            return ""
        if self.error is not None or self.finish == "error":
            return "failed"
        return ending_of(self.finish) if self.time.completed is not None else ""


def ending_of(finish: str) -> Literal["", "well", "for-tools", "broken"]:
    """Return what the reason that a step ended with means."""
    if finish in {"stop", "tool-calls"}:
        return "well" if finish == "stop" else "for-tools"
    return "broken" if finish else ""


class InboxItem(Wire):
    """What was accepted and has not begun."""

    id: Id
    type: Text = ""
    time: Annotated[_MessageTime, BeforeValidator(_dict)] = Field(default_factory=_MessageTime)


class _Payload(Wire):
    text: str | None = None


class Accepted(Wire):
    """The answer to a prompt: what stands under its id, which may be an earlier one's."""

    id: Id
    payload: Annotated[_Payload, BeforeValidator(_dict)] = Field(default_factory=_Payload)


class Event(Wire):
    """One event of the stream; `created` in milliseconds."""

    type: str = Field("", max_length=100)
    created: Number = 0
    data: Mapping = Field(default_factory=dict)


def member(answer: object, key: str) -> Any:
    """Return `answer[key]`, None where it has no such thing."""
    return answer.get(key) if isinstance(answer, dict) else None
