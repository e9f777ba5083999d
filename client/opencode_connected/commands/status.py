"""`status`: this machine's instances, their line, and their registration as a reader of the registry sees it."""

from __future__ import annotations

import asyncio
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from pathlib import Path  # noqa: TC003 - as above
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.text import Text

from opencode_connected import logs
from opencode_connected.agents import opencode2
from opencode_connected.errors import RegistryRefused
from opencode_connected.line.errors import LineError
from opencode_connected.line.inquiry import query
from opencode_connected.loopback import LoopbackEndpoint, Unanswered
from opencode_connected.openings import Opening, openings_of
from opencode_connected.registry import Registry
from opencode_connected.relay import line_settings
from opencode_connected.result import CommandResult
from opencode_connected.state import InstanceState, LineReport, StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.settings import LauncherSettings

_LOG_LINES = 8
_HISTORY_LINES = 5
_HEALTH_SECONDS = 3.0
_MADE_PRINTABLE = {"line", "cwd", "directories", "open_below", "hostname"}
"""Of a state file: what is not shown as it stands."""

State = Literal["registered", "not-registered", "starting", "not-answering", "dead", "elsewhere"]
"""`dead`: its launcher is gone. `not-registered`: OpenCode answers, but no reader of the registry finds it.

`elsewhere`: it is of another machine that has this home too, whose processes are not seen from here.
"""


class RelayRegistration(BaseModel):
    """A registration as the relay has it."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    name: str = Field(max_length=64)
    hostname: str = Field(default="", max_length=255)
    port: int
    local_port: int = Field(alias="localPort")
    cwd: str = Field(default="", max_length=4096)
    connected_at: str = Field(default="", alias="connectedAt", max_length=40)
    client: str | None = Field(default=None, max_length=64)


class RelayView(BaseModel):
    """What the relay that RELAY_SSH_CMD names has of this account."""

    error: str | None = None
    """Why it could not be asked."""
    remedy: str | None = None
    registrations: list[RelayRegistration] = []


class InstanceStatus(BaseModel):
    """One instance of this machine, or of another one that has this home too."""

    name: str | None
    state: State
    mode: Literal["local", "relay"]
    headless: bool
    hostname: str
    """Of its machine."""
    cwd: str
    port: int | None
    local_port: int | None
    launcher_pid: int
    opencode_pid: int | None
    opencode_version: str | None
    generation: Literal[1, 2]
    rights: list[str]
    """What may come from afar."""
    directories: list[str]
    """Where may be worked from afar besides `cwd`, with everything below."""
    open_below: list[str]
    """In and below what directories instances may be opened from afar while it runs."""
    opened_from_afar: list[Opening]
    holds_line: bool
    """False where another launcher's line makes this one reachable."""
    started_at: datetime
    line: LineReport | None
    log_file: Path
    recent_log: list[str]


class StatusResult(CommandResult):
    """All of it."""

    instances: list[InstanceStatus]
    relay: RelayView | None
    """None if no relay is configured here and now."""

    @property
    def exit_code(self) -> int:
        """1 if an instance is not registered, or the relay cannot be asked."""
        ill = any(instance.state not in ("registered", "starting", "elsewhere") for instance in self.instances)
        return int(ill or bool(self.relay and self.relay.error))

    def as_text(self) -> list[RenderableType]:
        """A block per instance."""
        lines: list[RenderableType] = []
        for instance in self.instances:
            lines += [*_block(instance), Text()]
        if not self.instances:
            lines += [Text("no instance runs on this machine: start one with `opencode-connected`"), Text()]
        if self.relay:
            lines += _relay_block(self.relay)
        return lines[:-1] if lines and not self.relay else lines


def status(settings: LauncherSettings) -> StatusResult:
    """Look at every instance of this user on this machine, and ask the relay if one is configured."""
    states = StateDirectory(settings.state_dir).read_all()
    relay = asyncio.run(_ask_relay(settings)) if settings.relay_ssh_cmd else None
    holders = {
        state.line_key: state
        for state in states
        if state.is_here and state.holds_line and state.line_key and state.launcher_lives()
    }
    return StatusResult(
        instances=[_look_at(state, holders.get(state.line_key or ""), relay, settings) for state in states],
        relay=relay,
    )


async def _ask_relay(settings: LauncherSettings) -> RelayView:
    # Nothing listens behind a query: neither port nor id means anything to it.
    line = line_settings(settings, local_port=0, instance_id="0" * 32)
    try:
        files = await query(line)
    except LineError as error:
        return RelayView(error=printable(str(error)), remedy=printable(error.remedy) or None)
    registrations = []
    for file in files:
        clean = {key: printable(value) if isinstance(value, str) else value for key, value in file.items()}
        try:
            registrations.append(RelayRegistration.model_validate(clean))
        except ValidationError:
            continue  # somebody else's format is not shown half
    return RelayView(registrations=registrations)


def _look_at(
    state: InstanceState, holder: InstanceState | None, relay: RelayView | None, settings: LauncherSettings
) -> InstanceStatus:
    return InstanceStatus(
        **state.model_dump(include=set(InstanceStatus.model_fields) - _MADE_PRINTABLE),
        hostname=printable(state.hostname),
        cwd=printable(state.directory or state.cwd),
        directories=[printable(directory) for directory in state.directories],
        open_below=[printable(directory) for directory in state.open_below],
        opened_from_afar=openings_of(settings.state_dir, state),
        state=_state_of(state, holder or state, relay, settings),
        line=state.line,
        recent_log=logs.tail(state.log_file, _LOG_LINES),
    )


def _state_of(
    state: InstanceState, holder: InstanceState, relay: RelayView | None, settings: LauncherSettings
) -> State:
    if not state.is_here:
        return "elsewhere"
    if not state.launcher_lives():
        return "dead"
    if (holder.name is None or holder.port is None) and (holder.line is None or holder.line.error is None):
        return "starting"
    if not _answers(state, settings):
        return "not-answering"
    is_held = holder.name is not None and holder.launcher_lives()
    return "registered" if is_held and _is_registered(holder, relay) else "not-registered"


def _answers(state: InstanceState, settings: LauncherSettings) -> bool:
    if state.generation > 1:
        return opencode2.running_service(settings.environment) is not None
    try:
        code, _ = LoopbackEndpoint(state.local_port or 0, settings.opencode_credentials).get(
            "/global/health", timeout=_HEALTH_SECONDS
        )
    except Unanswered:
        return False
    return code in (200, 401)


def _is_registered(state: InstanceState, relay: RelayView | None) -> bool:
    """Ask the registry itself; where it cannot be asked, what the launcher last knew counts."""
    if state.mode == "local":
        try:
            return Registry(state.registry_dir).holds(state.name or "", state.instance_id)
        except RegistryRefused:
            return False
    if relay is None or relay.error:
        return state.line is not None and state.line.phase == "registered"
    return any(found.name == state.name and found.local_port == state.local_port for found in relay.registrations)


_STYLES: dict[State, str] = {
    "registered": "green",
    "starting": "yellow",
    "not-registered": "red",
    "not-answering": "red",
    "dead": "red",
    "elsewhere": "yellow",
}


def _block(instance: InstanceStatus) -> list[RenderableType]:
    title = Text(instance.name or "(no name yet)", style="bold")
    title.append("  ").append(instance.state, style=_STYLES[instance.state])
    facts = [
        ("directory", instance.cwd),
        ("OpenCode", _opencode(instance)),
        ("port", _ports(instance)),
        ("from afar", " ".join(instance.rights) or "nothing"),
        *([("below", ", ".join(instance.directories))] if instance.directories else []),
        *([("may open", f"below {', '.join(instance.open_below)}")] if instance.open_below else []),
        *(("opened", f"{each.name}, {each.directory}, from afar") for each in instance.opened_from_afar),
        ("since", instance.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("log", str(instance.log_file)),
    ]
    if instance.state == "elsewhere":
        facts.append(("machine", f"{instance.hostname}: run `opencode-connected status` there"))
    if instance.state == "dead":
        facts.append(("remedy", "`opencode-connected cleanup` removes what is left of it"))
    lines: list[RenderableType] = [title, *(Text(f"  {what:<10}{fact}") for what, fact in facts)]
    if instance.line:
        lines += _line_block(instance.line)
    return [*lines, *(Text(f"  | {entry}", style="dim") for entry in instance.recent_log)]


def _line_block(line: LineReport) -> list[RenderableType]:
    text = f"  {'line':<10}{line.phase} since {line.since}, {line.reconnects} reconnects"
    lines: list[RenderableType] = [Text(text)]
    if line.error:
        lines.append(Text(f"  {'':<10}{line.error}" + (f": {line.remedy}" if line.remedy else ""), style="red"))
    return lines + [Text(f"  {'':<10}{e.at} {e.text}", style="dim") for e in line.history[-_HISTORY_LINES:]]


def _opencode(instance: InstanceStatus) -> str:
    """Return version and process; of OpenCode 2 the interface's, or the service's where there is none."""
    version = instance.opencode_version or f"{instance.generation}, version unknown"
    shared = "" if instance.holds_line else ", reached by another launcher's line"
    return f"{version}, process {instance.opencode_pid or '-'}{shared}"


def _ports(instance: InstanceStatus) -> str:
    if instance.mode == "local":
        return f"{instance.local_port or '-'}"
    return f"{instance.local_port or '-'} here, {instance.port or '-'} on the relay"


def _relay_block(relay: RelayView) -> list[RenderableType]:
    if relay.error:
        return [Text(f"relay: {relay.error}" + (f": {relay.remedy}" if relay.remedy else ""), style="red")]
    lines: list[RenderableType] = [
        Text(f"on the relay, this account has {len(relay.registrations) or 'nothing'} registered")
    ]
    return lines + [
        Text(f"  {found.name}  port {found.port}  {found.hostname}:{found.cwd}") for found in relay.registrations
    ]
