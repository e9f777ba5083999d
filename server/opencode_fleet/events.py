"""What an agent tells while it works, in the fleet's words. Each belongs to one session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opencode_fleet.model import Ask, Session, Status


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """A session is new or another than before."""

    session: Session

    @property
    def session_id(self) -> str:
        """Its id."""
        return self.session.id


@dataclass(frozen=True, slots=True)
class SessionGone:
    """A session was deleted."""

    session_id: str


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A session does something else; None: it is idle."""

    session_id: str
    status: Status | None


@dataclass(frozen=True, slots=True)
class AskOpened:
    """An agent waits for a person."""

    ask: Ask

    @property
    def session_id(self) -> str:
        """The session that waits."""
        return self.ask.session_id


@dataclass(frozen=True, slots=True)
class AskSettled:
    """It waits no more. `how` says what was decided, in one word where that is told."""

    session_id: str
    ask_id: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class TextChanged:
    """The agent writes: `text` is the whole part so far, or what is added. Never reasoning or a person's text."""

    session_id: str
    part_id: str
    text: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ToolChanged:
    """A tool call began (`call`: name and argument) or none is under way any more (empty)."""

    session_id: str
    call: str


@dataclass(frozen=True, slots=True)
class PromptTaken:
    """The agent has begun with a prompt."""

    session_id: str
    prompt_id: str


@dataclass(frozen=True, slots=True)
class AnswerChanged:
    """An answer began or ended. `well`: the model said that it is done; `broken`: it stopped without saying so."""

    session_id: str
    message_id: str
    prompt_id: str
    """The prompt that it answers, where that is told."""
    ended: Literal["", "well", "for-tools", "broken", "failed"]


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The turn failed; `problem` is one line. `is_stopped`: somebody stopped it."""

    session_id: str
    problem: str
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class TurnStopped:
    """The turn was broken off and is no failure: somebody stopped it, or refused what it asked."""

    session_id: str


Event = (
    SessionChanged
    | SessionGone
    | StatusChanged
    | AskOpened
    | AskSettled
    | TextChanged
    | ToolChanged
    | PromptTaken
    | AnswerChanged
    | TurnFailed
    | TurnStopped
)
RUN_STATE = StatusChanged | SessionGone | AskOpened | AskSettled
"""The events that a list of what runs takes the place of."""
