"""The listing of sessions: a row for programs and a line for people, of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opencode_common.text import bare, fence, one_line
from opencode_common.times import moment_text
from opencode_mcp.views.instances import TITLE_LENGTH
from opencode_mcp.views.rows import Result, Row
from opencode_mcp.views.times import age_text

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.session_list import Listed, SessionList
    from opencode_mcp.handles import Handles

MAX_SILENT = 20
"""Instances that did not answer, of which a line is said each; more are counted."""
_REASON_LENGTH = 160


class SessionRow(Row):
    """One session. `updated`: epoch seconds. Of what it changed, cost and tokens: 0 is not told."""

    id: str
    handle: str = ""
    instance: str
    title: str
    state: str
    updated: float = 0
    agent: str = ""
    model: str = ""
    files: int = 0
    additions: int = 0
    deletions: int = 0
    cost: float = 0
    tokens: int = 0


class SessionsResult(Result):
    """Sessions, newest first. `more`: how many others there are, at least."""

    sessions: list[SessionRow]
    more: int = 0
    problems: list[str] = []


def sessions_result(found: SessionList, handles: Handles) -> SessionsResult:
    """Return what was found, for programs; each session gets a handle."""
    problems = [_silence(instance) for instance in found.silent[:MAX_SILENT]]
    if len(found.silent) > MAX_SILENT:
        problems.append(f"{len(found.silent) - MAX_SILENT} more instances did not tell their sessions")
    handles.prepare("s", [(each.instance.name, each.session.id) for each in found.sessions])
    return SessionsResult(
        sessions=[_row(each, handles) for each in found.sessions], more=found.more, problems=problems
    )


def sessions_text(result: SessionsResult, found: SessionList, title: str) -> str:
    """Return the listing, one line for each session; `title` is what was searched for."""
    sought = " whose title has that in it (the text of messages is not searched)" if title else ""
    lines = [
        _line(row, _age(each.instance, row.updated))
        for row, each in zip(result.sessions, found.sessions, strict=True)
    ]
    text = fence("\n".join(lines)) if lines else f"there is no session{sought}"
    if result.more:
        text += f"\n{result.more} or more others are left out: ask for a larger `limit`, or by a part of the title"
    return f"{text}\nnotes:\n{fence(chr(10).join(result.problems))}" if result.problems else text


def session_state(instance: Instance, session_id: str) -> str:
    """Return what a session does, in one word."""
    state = instance.state
    if state.pending_asks(session_id):
        return "waits"
    status = state.statuses.get(session_id)
    if status is not None and status.kind == "retry":
        return "retry"
    return "busy" if state.family_busy(session_id) else "idle"


def _row(listed: Listed, handles: Handles) -> SessionRow:
    instance, session = listed.instance, listed.session
    return SessionRow(
        id=session.id,
        handle=handles.of_session(instance.name, session.id),
        instance=instance.name,
        title=one_line(session.title, TITLE_LENGTH),
        state="unknown" if listed.is_old else session_state(instance, session.id),
        updated=session.updated,
        agent=one_line(session.agent, 40),
        model=one_line(session.model, 80),
        files=session.files,
        additions=session.additions,
        deletions=session.deletions,
        cost=session.cost,
        tokens=session.tokens,
    )


def _age(instance: Instance, updated: float) -> str:
    """Return when a session was last changed, by the clock of its own machine where that is known."""
    now = instance.agent.clock if instance.connected.is_set() else None
    return age_text((now or time.time()) - updated) if updated else ""


def _line(row: SessionRow, age: str) -> str:
    parts = [
        f"{row.handle} {row.id}: {row.state}",
        row.instance,
        f"“{row.title}”" if row.title else "",
        age,
        f"agent {row.agent}" if row.agent else "",
        f"model {row.model}" if row.model else "",
        f"{row.files} files +{row.additions} -{row.deletions}" if row.files else "",
        f"${row.cost:.2f}" if row.cost else "",
        f"{row.tokens:,} tokens" if row.tokens else "",
    ]
    return " · ".join(part for part in parts if part)


def _silence(instance: Instance) -> str:
    until = instance.known_until
    known = f"; they are listed as they were at {moment_text(until)}" if until else ""
    silence = "it did not answer in time" if instance.connected.is_set() else "it is not connected yet"
    why = one_line(bare(instance.trouble), _REASON_LENGTH) or silence
    return f"{one_line(instance.name, 64)} did not tell its sessions ({why}){known}"
