"""What the guard on an agent's machine says of itself; `docs/contract.md` describes the document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from opencode_fleet.errors import BadAnswer, NotFound, Refused
from opencode_fleet.model import Opened

if TYPE_CHECKING:
    from opencode_fleet.agents.http import AgentClient

GUARD_PATH: Final = "/opencode-relay/guard"
OPEN_PATH: Final = "/opencode-relay/open"
CLOSE_PATH: Final = "/opencode-relay/close"
GUARD_CHANGED: Final = {"type": "guard.changed"}
"""What the guard itself puts into the event stream when its document is another one."""
MAX_DIRECTORIES: Final = 1_000


def _words(value: object) -> object:
    return [word for word in value if isinstance(word, str) and len(word) <= 40] if isinstance(value, list) else []


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class GuardedDirectory(_Part):
    """A directory that may be driven in: one that a launcher opened, or else a root with all below it."""

    path: str = Field(min_length=1, max_length=4096)
    name: str = Field("", max_length=200)
    opened: bool = True
    afar: bool = False
    """Whether it was opened from afar, and can be closed from there."""


class GuardDocument(_Part):
    """What stands before the agent and what it lets through."""

    guard: Literal[1]
    generation: Literal[1, 2]
    version: str = Field("", max_length=64)
    rights: Words = ()
    directories: tuple[GuardedDirectory, ...] = Field((), max_length=MAX_DIRECTORIES)
    verbs: Words = ()

    def require(self, verb: str) -> None:
        """Make sure that the guard knows `verb`.

        Raises:
            Refused: it is older than this server.
        """
        if verb not in self.verbs:
            raise Refused(f"the guard there does not know {verb!r} yet: update opencode-relay on that laptop")

    def check_close(self, directory: str) -> None:
        """Make sure that a directory was opened from afar: the guard closes no other.

        Raises:
            Refused: it was not.
        """
        if not any(each.path == directory and each.afar for each in self.directories):
            raise Refused(
                "that directory was not opened from afar, so it is not closed from there: it goes when its launcher "
                "on that laptop ends. Nothing was closed"
            )


class _Opened(_Part):
    directory: str = Field(min_length=1, max_length=4096)
    opened: bool = True


class _Closed(_Part):
    still: bool = False


async def read_guard(client: AgentClient) -> GuardDocument | None:
    """Return the guard's document; None where no guard is, as before launchers of this release."""
    try:
        answer = await client.call("GET", GUARD_PATH, timeout=client.health_timeout)
    except (NotFound, BadAnswer):
        return None
    if not (isinstance(answer, dict) and "guard" in answer):
        return None  # whatever listens there answers JSON to anything
    return client.one(GuardDocument, answer)


async def open_directory(client: AgentClient, guard: GuardDocument, directory: str) -> Opened:
    """Have a directory opened; `~` is its machine's to replace. Raises `InstanceError` or `Refused`."""
    guard.require("open")
    answer = client.one(_Opened, await client.call("POST", OPEN_PATH, body={"directory": directory}))
    return Opened(answer.directory, is_new=answer.opened)


async def close_directory(client: AgentClient, guard: GuardDocument, directory: str) -> bool:
    """Have a directory closed that was opened so; return whether it can be seen still. Raises as above."""
    guard.require("close")
    return client.one(_Closed, await client.call("POST", CLOSE_PATH, body={"directory": directory})).still
