"""`sessions`: the recent sessions of each instance of this machine that answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from rich.text import Text

from opencode_connected.agents import opencode2
from opencode_connected.loopback import LoopbackEndpoint, Unanswered
from opencode_connected.openings import openings_of
from opencode_connected.result import CommandResult
from opencode_connected.state import InstanceState, StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.settings import LauncherSettings

_REQUEST_SECONDS = 5.0
_MAX_AT_ONCE = 16


class ReachableSession(BaseModel):
    """One session."""

    id: str
    title: str
    updated_at: datetime


class InstanceSessions(BaseModel):
    """The sessions of one instance, the newest first."""

    name: str | None
    cwd: str
    local_port: int
    error: str | None = None
    """Why there are none to show."""
    sessions: list[ReachableSession] = []


class ReachableSessionsResult(CommandResult):
    """The sessions of all instances."""

    instances: list[InstanceSessions]

    @property
    def exit_code(self) -> int:
        """1 if an instance could not be asked."""
        return int(any(instance.error for instance in self.instances))

    def as_text(self) -> list[RenderableType]:
        """A line per session below its instance."""
        if not self.instances:
            return [Text("no instance runs on this machine: start one with `opencode-connected`")]
        lines: list[RenderableType] = []
        for instance in self.instances:
            lines.append(Text(f"{instance.name or '(no name yet)'}  {instance.cwd}", style="bold"))
            lines += [
                Text(f"  {session.updated_at:%Y-%m-%d %H:%M} UTC  {session.id}  {session.title}")
                for session in instance.sessions
            ]
            if instance.error:
                lines.append(Text(f"  {instance.error}", style="red"))
            elif not instance.sessions:
                lines.append(Text("  no session yet", style="dim"))
        return lines


class _Time(BaseModel):
    updated: int = Field(ge=0, le=253_402_300_799_000)
    """Milliseconds since 1970; up to the last date that Python knows."""
    archived: int | None = None


class _Answered(BaseModel):
    """A session as OpenCode tells it."""

    id: str = Field(max_length=100)
    title: str = ""
    """OpenCode 2 gives one later."""
    time: _Time


class _Answered2(BaseModel):
    """A page of sessions as OpenCode 2 tells it."""

    data: list[_Answered]


_ANSWER = TypeAdapter(list[_Answered])
_ANSWER_2 = TypeAdapter(_Answered2)


def sessions(settings: LauncherSettings, *, limit: int) -> ReachableSessionsResult:
    """Ask each instance whose launcher lives for its newest `limit` sessions in its own directory."""
    states = [s for s in StateDirectory(settings.state_dir).read_here() if s.local_port and s.launcher_lives()]
    from_afar = [
        state.model_copy(update={"name": each.name, "cwd": each.directory, "directory": each.directory})
        for state in states
        for each in openings_of(settings.state_dir, state)
    ]
    with ThreadPoolExecutor(_MAX_AT_ONCE) as pool:
        asked = pool.map(lambda state: _ask(state, settings, limit), [*states, *from_afar])
        return ReachableSessionsResult(instances=list(asked))


def _ask(state: InstanceState, settings: LauncherSettings, limit: int) -> InstanceSessions:
    answer = InstanceSessions(
        name=printable(state.name) if state.name else None, cwd=printable(state.cwd), local_port=state.local_port or 0
    )
    try:
        code, found = (_from_2 if state.generation > 1 else _from_1)(state, settings, 2 * limit)
    except Unanswered as error:
        answer.error = f"OpenCode does not answer: {printable(str(error))}"
    except ValidationError:
        answer.error = "OpenCode answers in a way that this version does not understand"
    else:
        if code == 401:
            answer.error = "OpenCode wants a password: set OPENCODE_SERVER_PASSWORD as it was set when it started"
        elif code != 200:
            answer.error = f"OpenCode answers with HTTP status {code}"
        shown = [session for session in found if session.time.archived is None][:limit]
        answer.sessions = [
            ReachableSession(
                id=printable(session.id),
                title=printable(session.title, limit=120),
                updated_at=datetime.fromtimestamp(session.time.updated / 1000, UTC),
            )
            for session in shown
        ]
    return answer


def _from_1(state: InstanceState, settings: LauncherSettings, limit: int) -> tuple[int, list[_Answered]]:
    """Return HTTP status and sessions. Archived ones count for OpenCode's limit, but are not shown."""
    query = urlencode({"directory": state.cwd, "roots": "true", "limit": limit})
    endpoint = LoopbackEndpoint(state.local_port or 0, settings.opencode_credentials)
    code, body = endpoint.get(f"/session?{query}", timeout=_REQUEST_SECONDS)
    return code, _ANSWER.validate_json(body) if code == 200 else []


def _from_2(state: InstanceState, settings: LauncherSettings, limit: int) -> tuple[int, list[_Answered]]:
    """As above, from OpenCode 2's service."""
    service = opencode2.running_service(settings.environment)
    if service is None:
        raise Unanswered("its service does not run")
    query = urlencode(
        {"directory": state.directory or state.cwd, "parentID": "null", "order": "desc", "limit": limit}
    )
    endpoint = LoopbackEndpoint(service.port, service.credentials)
    code, body = endpoint.get(f"/api/session?{query}", timeout=_REQUEST_SECONDS)
    return code, _ANSWER_2.validate_json(body).data if code == 200 else []
