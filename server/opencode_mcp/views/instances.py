"""The listing of instances: a row for programs and a line for people, of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from opencode_common.text import bare, fence, one_line
from opencode_common.times import moment_text
from opencode_mcp.views.asks import gist
from opencode_mcp.views.rows import Result, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opencode_fleet.instance import Instance
    from opencode_mcp.handles import Handles

MAX_ROWS = 200
MAX_LISTING = 20_000
"""Instances and characters of one listing, whatever registers."""
DIRECTORY_LENGTH = 120
TITLE_LENGTH = 60
WAITS_FOR_LENGTH = 160
_RANKS: Final = {
    "needs-permission": 0,
    "needs-answer": 0,
    "retry": 1,
    "busy": 2,
    "connecting": 4,
    "unresponsive": 5,
    "offline": 6,
}
_REST: Final = 3
BY_DEFAULT = frozenset({"observe", "drive", "approve"})
"""What the owner of a machine lets through, unless asked otherwise."""


class InstanceRow(Row):
    """One instance. `since`: when it went away (epoch seconds). `remote`: what may be done from afar, if not all."""

    name: str
    state: str
    directory: str
    hostname: str
    client: str = ""
    version: str = ""
    session: str = ""
    session_handle: str = ""
    title: str = ""
    agent: str = ""
    waits_for: str = ""
    since: float = 0
    remote: list[str] = []


class InstancesResult(Result):
    """The fleet. `left_out`: how many more there are, by state."""

    instances: list[InstanceRow]
    left_out: dict[str, int] = {}
    problems: list[str] = []


class InstanceRows:
    """The rows and lines of instances, each made anew only when its instance or the handles have changed."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._made: WeakKeyDictionary[Instance, tuple[object, InstanceRow, str]] = WeakKeyDictionary()

    def of(self, instances: Sequence[Instance], kept_for: Mapping[str, int]) -> list[tuple[InstanceRow, str]]:
        """Return the row and the line of each; `kept_for`: how many messages wait for it, by its name."""
        newest = ((instance.name, instance.state.newest_root()) for instance in instances)
        self._handles.prepare("s", [(name, session.id) for name, session in newest if session])
        return [self._of(instance, kept_for.get(instance.name, 0)) for instance in instances]

    def _of(self, instance: Instance, kept: int) -> tuple[InstanceRow, str]:
        made = self._made.get(instance)
        key = instance.version, self._handles.edition, kept
        if made is None or made[0] != key:
            row = self._row(instance, kept)
            made = key, row, _instance_line(row)
            self._made[instance] = made
        return made[1], made[2]

    def _row(self, instance: Instance, kept: int) -> InstanceRow:
        state = instance.state
        newest = state.newest_root()
        asks = state.pending_asks()
        waits_for = ""
        if asks:
            others = len(asks) - 1 + state.asks_left_out
            more = f" (+{others} more)" if others else ""
            waits_for = one_line(gist(asks[0]), WAITS_FOR_LENGTH) + more
        elif retries := state.retries():
            waits_for = one_line(retries[0].describe(), WAITS_FOR_LENGTH)
        elif not instance.connected.is_set():
            waits_for = one_line(bare(instance.trouble), WAITS_FOR_LENGTH)
        if kept:
            waits_for = "; ".join(each for each in (waits_for, _kept_text(kept)) if each)
        return InstanceRow.model_construct(
            name=instance.name,
            state=instance.state_name(),
            directory=one_line(state.directory or instance.endpoint.directory, DIRECTORY_LENGTH),
            hostname=one_line(instance.endpoint.hostname, 80),
            client=one_line(instance.endpoint.client or "", 64),
            version=one_line(instance.agent_version, 20),
            session=newest.id if newest else "",
            session_handle=self._handles.of_session(instance.name, newest.id) if newest else "",
            title=one_line(newest.title, TITLE_LENGTH) if newest else "",
            agent=one_line(newest.agent, 40) if newest else "",
            waits_for=waits_for,
            since=instance.offline_since or instance.known_until or 0,
            remote=_limited(instance.rights),
        )


def _kept_text(kept: int) -> str:
    return f"{kept} {'messages wait' if kept > 1 else 'message waits'} for it"


def kept_elsewhere(kept_for: Mapping[str, int], listed: Iterable[Instance]) -> list[str]:
    """Say for which instances messages wait that are not listed, a line each."""
    names = sorted(kept_for.keys() - {instance.name for instance in listed})
    return [f"{one_line(name, 64)} is not there; {_kept_text(kept_for[name])}" for name in names[:MAX_ROWS]]


def _limited(rights: frozenset[str] | None) -> list[str]:
    """Return what may be done from afar where that is not what every machine allows by default, or more."""
    if rights is None or rights >= BY_DEFAULT:
        return []
    return sorted(one_line(right, 20) for right in rights)


def in_order(instances: Iterable[Instance]) -> list[Instance]:
    """Return first what needs the person, then what is busy, then the rest, at last what is away; each by name."""
    return sorted(instances, key=lambda instance: (_RANKS.get(instance.state_name(), _REST), instance.name))


def fits(instance: Instance, words: Iterable[str]) -> bool:
    """Tell whether each word is its state, or stands in its name, machine, directory or newest title."""
    state = instance.state_name()
    newest = instance.state.newest_root()
    told = [
        instance.name,
        instance.endpoint.hostname,
        instance.endpoint.client or "",
        instance.state.directory or instance.endpoint.directory,
        newest.title if newest else "",
    ]
    text = "\n".join(told).casefold()
    return all(word == state or word in text for word in words)


def fitting(lines: list[str]) -> int:
    """Return how many of the lines one listing takes."""
    length = 0
    for count, line in enumerate(lines):
        length += len(line) + 1
        if length > MAX_LISTING:
            return count
    return len(lines)


def instances_text(lines: list[str], result: InstancesResult, absence: str, whose: str) -> str:
    """Return the listing, one short line for each instance; `absence` where there is none.

    `whose`: the machines of those that are left out.
    """
    listing = fence("\n".join(lines)) if lines else absence
    if result.left_out:
        states = ", ".join(f"{count} {state}" for state, count in result.left_out.items())
        total = sum(result.left_out.values())
        listing += (
            f"\n{total} more are left out ({states}; of {whose}); `read` and `send` reach each of them by its name"
        )
    # The notes name files that anybody may have put there.
    notes = "\n".join(problem for problem in result.problems if problem != listing)
    return f"{listing}\nnotes:\n{fence(notes)}" if notes else listing


def _instance_line(row: InstanceRow) -> str:
    state = row.state
    if row.since:
        state += f" since {moment_text(row.since)}"
    if row.waits_for:
        state += f" ({row.waits_for})"
    session = " ".join(part for part in (row.session_handle, f"“{row.title}”" if row.title else "") if part)
    parts = [f"{row.name}: {state}", row.directory, session, row.session, row.client]
    if row.agent:
        parts.append(f"agent {row.agent}")
    if row.version:
        parts.append(f"v{row.version}")
    if row.remote:
        parts.append(f"from afar only: {', '.join(row.remote)}")
    return " · ".join(part for part in parts if part)
