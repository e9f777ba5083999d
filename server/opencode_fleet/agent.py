"""What an agent can be asked, whatever it is. Each kind lives in `agents/`; nothing above knows which it is.

Every call raises `InstanceError` if the agent did not do what was asked; see `errors`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from opencode_fleet.changes import FileChange, Todo, WorkingTree
    from opencode_fleet.events import Event
    from opencode_fleet.model import (
        Message,
        Opened,
        Permission,
        Prompt,
        Question,
        Runs,
        Session,
        Snapshot,
        TurnRecord,
    )


class Capability(Enum):
    """What not every agent can do."""

    SCREEN = auto()
    """A session can be shown on the screen of whoever sits there (`show`)."""
    REASONS = auto()
    """A rejection's reason reaches the model; else it must be sent as a message of its own."""
    WAKES = auto()
    """A prompt can lie unread in an idle session; posting it again wakes it."""
    DIRECTORIES = auto()
    """It works in several directories, so that a session's own one says whose it is."""
    QUEUES = auto()
    """It keeps a prompt for after the running turn (`Prompt.delivery`); else each joins the turn."""
    SETTLES = auto()
    """What it offers in a directory may lack some for a moment, when it is asked for the first time."""
    ARCHIVES = auto()
    """A session can be put away from afar."""
    OUTLIVES = auto()
    """Its turns go on when the person there closes it."""
    LISTS = auto()
    """It keeps a list of what it has to do (`todos`)."""


class Controls(Protocol):
    """What can be done beside turns: with sessions, and with the directories that the agent works in.

    Every call raises `Refused`, with the reason, where this kind of agent or its version cannot do it.
    """

    async def compact(self, session: Session) -> None:
        """Have what was said so far replaced by a summary. It may still go on when this returns."""

    async def fork(self, session_id: str) -> Session:
        """Copy a session with all its messages, and return the copy."""

    async def undo(self, session_id: str, message_id: str) -> None:
        """Take back a person's message and all after it, changes to files too, until the next prompt."""

    async def redo(self, session_id: str) -> None:
        """Bring back all that `undo` took back."""

    async def rename(self, session_id: str, title: str) -> None:
        """Give a session another title."""

    async def archive(self, session_id: str) -> None:
        """Put a session away."""

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """Have a session go on with another agent or model, empty: as it is; no message is needed for it."""

    async def open(self, directory: str) -> Opened:
        """Have the agent work in one more directory of its machine; one that it works in already stays as it is."""

    def check_close(self, directory: str) -> None:
        """Make sure that `close` makes sense, by what is known. Raises `Refused`: it will not be done."""

    async def close(self, directory: str) -> bool:
        """Take back what `open` did, and return whether the directory can be seen all the same."""


class Agent(Protocol):
    """One agent at one endpoint, which may work in several directories. Close it with `aclose`."""

    @property
    def version(self) -> str:
        """Its version, as it tells it."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do besides."""

    @property
    def rights(self) -> frozenset[str] | None:
        """What the owner of its machine lets through (words of `docs/contract.md`); None: not told."""

    @property
    def clock(self) -> float | None:
        """What time it was on its machine at its last answer (epoch seconds); None: not told.

        The times in its records are of that clock, and of no other machine's.
        """

    @property
    def controls(self) -> Controls:
        """What can be done with its sessions beside their turns."""

    async def aclose(self) -> None:
        """Close all connections."""

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event | None]]:
        """Open the one event stream of all its directories.

        Once it is entered, nothing that happens is missed. It yields None after a gap, when what may have happened
        must be fetched, and ends when the agent ends it in good order. It raises `Unresponsive` after a silence.
        """

    async def snapshot(self) -> Snapshot:
        """Return what there is."""

    async def runs(self) -> Runs:
        """Return only what runs and waits."""

    async def sessions(self, directory: str, limit: int, *, title: str = "") -> list[Session]:
        """Return the newest sessions of a directory that are no subagent's and not archived, newest first.

        `title`: what their titles must have in them; capital letters or not are the same.
        """

    async def session(self, session_id: str) -> Session:
        """Return one session. Raises `NotFound`."""

    async def messages(
        self,
        session_id: str,
        limit: int,
        *,
        until: Callable[[list[Message]], bool] | None = None,
        arrived: Callable[[int], None] | None = None,
    ) -> list[Message]:
        """Return the newest messages, oldest first; fewer where they are too large to fetch together.

        They come in pieces that fit the line. `until` is asked after each whether those so far are enough; `arrived`
        is told how many bytes came, each time.
        """

    async def message(self, session_id: str, message_id: str) -> Message:
        """Return one message with all that its tool calls told and changed. Raises `NotFound`."""

    async def turn(self, session_id: str, prompt_id: str) -> TurnRecord:
        """Return what the records say of the turn that a prompt started."""

    async def working_tree(self, directory: str) -> WorkingTree:
        """Return what version control says of a directory, which is nothing where there is none."""

    async def turn_changes(self, session_id: str) -> tuple[FileChange, ...]:
        """Return what the turn of the session's newest prompt changed, by file."""

    async def todos(self, session_id: str) -> list[Todo]:
        """Return what the agent noted down to do in the session; empty too where it keeps no such list."""

    async def agents(self, directory: str) -> list[str]:
        """Return the agents (modes) that a session of the directory can be in."""

    async def models(self, directory: str) -> list[str]:
        """Return the models that a session of the directory can be with, as `PROVIDER/MODEL`."""

    async def commands(self, directory: str) -> list[str]:
        """Return the names of the commands that a session of the directory can run."""

    async def create(self, directory: str) -> Session:
        """Create an empty session."""

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """Have a session go on with another agent or model, empty: as it is; the next prompt names them too."""

    async def prompt(self, prompt: Prompt) -> None:
        """Post a prompt and return at once; the session's own agent and model are kept."""

    async def run(self, name: str, prompt: Prompt) -> str:
        """Run one of its commands, at most once, with the prompt's text as arguments.

        Returns, once it is accepted, the id of the message that it became; empty where that is not told. What is
        raised after it was posted leaves open whether it runs.
        """

    async def interrupt(self, session_id: str) -> None:
        """Stop what a session runs, its subagents included; nothing happens where nothing runs."""

    async def reply(self, ask: Permission, decision: str, reason: str | None) -> None:
        """Settle a permission ask with `once`, `always` or `reject`. Raises `NotFound`: it is settled already."""

    async def answer(self, ask: Question, answers: list[list[str]]) -> None:
        """Answer a question: option values or free texts for each item. Raises `NotFound`: it is settled already."""

    async def decline(self, ask: Question) -> None:
        """Refuse to answer; the turn ends. Raises `NotFound`: it is settled already."""

    async def show(self, session: Session) -> None:
        """Show a session on the agent's screen, if it has one and nothing is lost by it."""
