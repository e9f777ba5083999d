"""The listing of instances: a row for programs and a line for people, of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opencode_common.text import bare, fence, one_line
from opencode_mcp.views.asks import gist
from opencode_mcp.views.rows import Row

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance

MAX_ROWS = 200
MAX_LISTING = 20_000
"""Instances and characters of one listing, whatever registers."""
DIRECTORY_LENGTH = 120
TITLE_LENGTH = 60
WAITS_FOR_LENGTH = 160
BY_DEFAULT = frozenset({"observe", "drive", "approve"})
"""What the owner of a machine lets through, unless asked otherwise."""


class InstanceRow(Row):
    """One instance. `since`: epoch seconds when it went offline. `remote`: what may be done from afar, if not all."""

    name: str
    state: str
    directory: str
    hostname: str
    client: str = ""
    version: str = ""
    session: str = ""
    title: str = ""
    agent: str = ""
    waits_for: str = ""
    since: float = 0
    remote: list[str] = []


class InstancesResult(Row):
    """The fleet. `left_out`: how many more there are, by state."""

    instances: list[InstanceRow]
    left_out: dict[str, int] = {}
    problems: list[str] = []


class InstanceRows:
    """The rows and lines of instances, each made anew only when its instance has changed."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Instance, tuple[int, InstanceRow, str]] = WeakKeyDictionary()

    def of(self, instance: Instance) -> tuple[InstanceRow, str]:
        """Return the instance's row and line."""
        made = self._made.get(instance)
        if made is None or made[0] != instance.version:
            row = _instance_row(instance)
            made = instance.version, row, _instance_line(row)
            self._made[instance] = made
        return made[1], made[2]


def _instance_row(instance: Instance) -> InstanceRow:
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
    return InstanceRow.model_construct(
        name=instance.name,
        state=instance.state_name(),
        directory=one_line(state.directory or instance.endpoint.directory, DIRECTORY_LENGTH),
        hostname=one_line(instance.endpoint.hostname, 80),
        client=one_line(instance.endpoint.client or "", 64),
        version=one_line(instance.agent_version, 20),
        session=newest.id if newest else "",
        title=one_line(newest.title, TITLE_LENGTH) if newest else "",
        agent=one_line(newest.agent, 40) if newest else "",
        waits_for=waits_for,
        since=instance.offline_since or 0,
        remote=_limited(instance.rights),
    )


def _limited(rights: frozenset[str] | None) -> list[str]:
    """Return what may be done from afar where that is not what every machine allows by default, or more."""
    if rights is None or rights >= BY_DEFAULT:
        return []
    return sorted(one_line(right, 20) for right in rights)


def fitting(lines: list[str]) -> int:
    """Return how many of the lines one listing takes."""
    length = 0
    for count, line in enumerate(lines[:MAX_ROWS]):
        length += len(line) + 1
        if length > MAX_LISTING:
            return count
    return min(len(lines), MAX_ROWS)


def instances_text(lines: list[str], result: InstancesResult, absence: str) -> str:
    """Return the listing, one short line for each instance; `absence` where there is none."""
    listing = fence("\n".join(lines)) if lines else absence
    if result.left_out:
        states = ", ".join(f"{count} {state}" for state, count in result.left_out.items())
        total = sum(result.left_out.values())
        listing += f"\n{total} more are left out ({states}); `read` and `send` reach each of them by its name"
    # The notes name files that anybody may have put there.
    notes = "\n".join(problem for problem in result.problems if problem != listing)
    return f"{listing}\nnotes:\n{fence(notes)}" if notes else listing


def _instance_line(row: InstanceRow) -> str:
    state = row.state
    if row.since:
        state += " since " + time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row.since))
    if row.waits_for:
        state += f" ({row.waits_for})"
    parts = [f"{row.name}: {state}", row.directory, f"“{row.title}”" if row.title else "", row.session, row.client]
    if row.agent:
        parts.append(f"agent {row.agent}")
    if row.version:
        parts.append(f"v{row.version}")
    if row.remote:
        parts.append(f"from afar only: {', '.join(row.remote)}")
    return " · ".join(part for part in parts if part)
