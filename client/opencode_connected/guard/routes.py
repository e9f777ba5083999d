"""What a table of routes is made of. What no route describes is not let through."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from opencode_connected.guard.policy import Right

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from opencode_connected.guard.bodies import Check
    from opencode_connected.guard.thinning import Shape, Thinner

MAX_BODY = 1 << 20
"""Bytes of a body that is no prompt."""
MAX_PROMPT = 8 << 20
"""Bytes of a prompt with its files; OpenCode 2 takes files of about 5 MB."""
_PARAMETER = re.compile(r"\{(\w+)\}")
_ID = "[A-Za-z0-9_-]{1,80}"


class Scope(Enum):
    """By what a request says which directory it is about."""

    NONE = auto()
    """About none; the answer is filtered, or tells nothing of one."""
    SESSION = auto()
    """By the session in the path."""
    QUERY = auto()
    """By the query; where it says none, the agent's own (generation 1), or it is refused (2)."""
    FILTER = auto()
    """By the query, which may leave it out: then the answer is filtered."""
    BODY = auto()
    """By `location.directory` of the body."""
    BODY_SESSION = auto()
    """By `sessionID` of the body."""


class Reach(Protocol):
    """What may be seen, for filters of answers."""

    def allows(self, directory: object) -> bool:
        """Tell whether what the agent calls a directory is one that may be seen."""

    async def sees(self, session_id: str) -> bool:
        """Tell whether the session is one of a directory that may be seen."""


if TYPE_CHECKING:
    Filter = Callable[[object, Reach], Awaitable[object]]


@dataclass(frozen=True)
class Route:
    """One thing that may be asked of the agent.

    Attributes:
        method: of HTTP.
        path: with `{…}` for ids.
        verb: what the guard calls it to whom asks what it can do.
        right: what the laptop's owner must have given; a function tells it from the body.
        scope: by what the directory is found.
        command: the body's keys for name and arguments, where it runs one of OpenCode's commands.
        directory_key: the query parameter that names the directory, where it is another than the agent's usual one.
        query: the parameters that are known, beside the directory's.
        body: what the body may be; None: there is none.
        max_body: bytes.
        answer: what is kept of the answer; None: all of it.
        is_emptied: texts that are too long for what `answer` keeps may be emptied while the answer is read.
        shape: what of the answer goes through the tunnel, none if it is too long to be looked at; None: all of it.
        header: one of the answer's that goes with it.
        is_stream: the answer is an event stream.

    """

    method: str
    path: str
    verb: str
    right: Right | Callable[[Mapping[str, object]], Right] = Right.OBSERVE
    scope: Scope = Scope.NONE
    command: tuple[str, str] | None = None
    directory_key: str | None = None
    query: Mapping[str, Check] = field(default_factory=dict)
    body: Check | None = None
    max_body: int = MAX_BODY
    answer: Filter | None = None
    is_emptied: bool = False
    shape: Shape = None
    header: str | None = None
    is_stream: bool = False

    def needs(self, body: Mapping[str, object]) -> Right:
        """Return the right that a request with `body` needs."""
        return self.right if isinstance(self.right, Right) else self.right(body)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the raw path must be, whole: nothing is decoded, so nothing decodes to something else."""
        parts = _PARAMETER.split(self.path)
        return re.compile(
            "".join(f"(?P<{part}>{_ID})" if i % 2 else re.escape(part) for i, part in enumerate(parts)), re.ASCII
        )


@dataclass(frozen=True)
class Api:
    """What is let through to one generation of OpenCode.

    Attributes:
        generation: 1 or 2.
        routes: all of them.
        directory_key: the query parameter that names a directory.
        decodes_twice: whether the agent decodes that parameter once more than it should.
        own_directory: where the agent tells its own directory; None where it has none that counts.
        session: where a session is told, `{session}` being its id.
        commands: where it lists its commands.
        session_directory: takes a session's directory out of the agent's answer.
        health: where the agent tells that it lives.
        filters_events: whether its event stream is of the whole machine.
        thinner: makes what thins one event stream.

    """

    generation: int
    routes: tuple[Route, ...]
    directory_key: str
    decodes_twice: bool
    own_directory: str | None
    session: str
    commands: str
    session_directory: Callable[[object], str | None]
    health: str
    filters_events: bool
    thinner: Callable[[], Thinner]

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of a request and the ids in its path, or None: it is not let through."""
        for route in self.routes:
            if route.method == method and (match := route.pattern.fullmatch(raw_path)):
                return route, match.groupdict()
        return None

    @property
    def verbs(self) -> list[str]:
        """The names of what can be done."""
        return sorted({"health", *(route.verb for route in self.routes)})


def member(value: object, *keys: str) -> object:
    """Return what lies at `keys` in `value`, or None where something on the way is no object."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def only(value: object, keys: Iterable[str]) -> dict[str, object]:
    """Return what `value` has of `keys`; nothing where it is no object."""
    return {key: value[key] for key in keys if key in value} if isinstance(value, dict) else {}
