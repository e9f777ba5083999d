"""`doctor`: each hop from OpenCode to a reader of the registry, with "ok" or the remedy."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel
from rich.text import Text

from opencode_connected.agents import generation, opencode1, opencode2
from opencode_connected.errors import LauncherError, OpenCodeMissing
from opencode_connected.guard.policy import Right
from opencode_connected.line.errors import LineError, LineRefused
from opencode_connected.line.inquiry import probe, query
from opencode_connected.loopback import HOST, Unanswered
from opencode_connected.registry import Registry
from opencode_connected.relay import line_settings
from opencode_connected.result import CommandResult
from opencode_connected.state import StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.line.inquiry import ProbeResult
    from opencode_connected.settings import LauncherSettings

HopName = Literal[
    "opencode",
    "service",
    "port",
    "state",
    "access",
    "ssh",
    "network",
    "host key",
    "authentication",
    "account",
    "forward",
    "registration",
    "tunnel",
    "privacy",
    "launchers",
]
HopStatus = Literal["ok", "warning", "failed", "not-reached"]

_RELAY_HOPS: tuple[HopName, ...] = (
    "ssh",
    "network",
    "host key",
    "authentication",
    "account",
    "forward",
    "registration",
    "tunnel",
    "privacy",
)
_BROKEN_AT: dict[str, HopName] = {
    "command": "ssh",
    "network": "network",
    "lost": "network",
    "host-key": "host key",
    "authentication": "authentication",
    "account": "account",
    "forward": "forward",
    "relay": "registration",
    "local": "tunnel",
}
_OF_THE_ENROLMENT: tuple[HopName, ...] = ("network", "host key", "authentication", "account")
"""Where a relay that is gone for good, or has done with this machine, is met."""
_FORWARD_CODES = ("bad-port", "exposed", "not-allowed")
"""What a relay may hold against the tunnel; everything else that it refuses concerns the registration."""

_PRIVACY = (
    "every user of the relay can reach the tunnel's port, and OpenCode behind it is a shell on this machine: "
    "use a relay that only you log in to, or one that was provisioned with a firewall for it"
)


class Hop(BaseModel):
    """One step of the way."""

    hop: HopName
    status: HopStatus
    detail: str = ""
    remedy: str = ""


class DoctorResult(CommandResult):
    """The whole way, in its order."""

    mode: Literal["local", "relay"]
    hops: list[Hop]

    @property
    def exit_code(self) -> int:
        """1 if a hop failed."""
        return int(any(hop.status == "failed" for hop in self.hops))

    def as_text(self) -> list[RenderableType]:
        """A line per hop, with the remedy below it."""
        styles = {"ok": "green", "warning": "yellow", "failed": "red", "not-reached": "dim"}
        lines: list[RenderableType] = []
        for hop in self.hops:
            line = Text(f"{hop.status:<12}", style=styles[hop.status])
            lines.append(line.append(f"{hop.hop:<15}{hop.detail}".rstrip(), style="not dim"))
            if hop.remedy:
                lines.append(Text(f"{'':<12}{'':<15}→ {hop.remedy}"))
        return lines


def doctor(settings: LauncherSettings) -> DoctorResult:
    """Try every hop. Nothing is registered, and what is made for the trial is gone afterwards."""
    hops = [*_opencode(settings), _port(), _state(settings), _access(settings)]
    if settings.relay_ssh_cmd is None:
        return DoctorResult(mode="local", hops=[*hops, _local_registration(settings)])
    return DoctorResult(mode="relay", hops=[*hops, *asyncio.run(_relay(settings))])


def _opencode(settings: LauncherSettings) -> list[Hop]:
    """Look at the program, and at OpenCode 2's service."""
    try:
        found = generation.ask(generation.find_binary(settings.environment), settings.environment)
    except OpenCodeMissing as error:
        return [Hop(hop="opencode", status="failed", detail=error.problem, remedy=error.remedy)]
    tested = generation.TESTED_VERSIONS[found.generation]
    program = Hop(hop="opencode", status="ok", detail=f"{found.version}, {found.binary}")
    if not found.is_tested:
        program.status = "warning"
        program.remedy = f"tested is {tested}.x; if something misbehaves, try that"
    return [program] if found.generation == 1 else [program, _service(settings)]


def _service(settings: LauncherSettings) -> Hop:
    record = opencode2.read_record(opencode2.registry_file(settings.environment))
    try:
        if record is None or (doubt := opencode2.verify(record)):
            detail = "does not run; it is started when it is needed" if record is None else f"does not run: {doubt}"
            return Hop(hop="service", status="ok", detail=detail)
        detail = f"{record.version}, process {record.pid}, port {record.port}"
        if not opencode2.info(record):
            remedy = "`opencode service restart` starts it anew; turns that run are resumed"
            return Hop(hop="service", status="failed", detail=f"{detail}: it does not answer", remedy=remedy)
        opencode2.refuse_undrivable(record)
    except OpenCodeMissing as error:
        return Hop(hop="service", status="failed", detail=printable(error.problem), remedy=error.remedy)
    except Unanswered as error:
        return Hop(hop="service", status="warning", detail=f"{detail}: {printable(str(error))}", remedy="try again")
    except LauncherError as error:
        return Hop(hop="service", status="failed", detail=str(error), remedy=_after_colon(error))
    return Hop(hop="service", status="ok", detail=detail)


def _access(settings: LauncherSettings) -> Hop:
    """Say what somebody who has the relay could do here."""
    rights = " ".join(right for right in Right if right in settings.rights) or "nothing"
    where = ", ".join(map(printable, settings.directories))
    below = f"below {where}" if where else "with --headless and OpenCode 2 below the home directory"
    detail = f"{rights}, in directories where opencode-connected runs, and {below}"
    return Hop(hop="access", status="ok", detail=detail)


def _after_colon(error: Exception) -> str:
    return str(error).partition(": ")[2] or str(error)


def _port() -> Hop:
    first, last = opencode1.LOCAL_PORTS[0], opencode1.LOCAL_PORTS[-1]
    try:
        opencode1.free_port()
    except LauncherError as error:
        return Hop(hop="port", status="failed", detail=f"{first}-{last} are all in use", remedy=_after_colon(error))
    return Hop(hop="port", status="ok", detail=f"there are free ones in {first}-{last}")


def _state(settings: LauncherSettings) -> Hop:
    """Try to write where the launcher does; what is not there yet is made by it below what is."""
    for directory in (settings.state_dir / "instances", settings.state_dir / "log"):
        there = next(path for path in (directory, *directory.parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"x")
        except OSError as error:
            detail = f"{there} cannot be written: {error.strerror}"
            remedy = "make it writable: OpenCode starts without, but `status`, `sessions` and `cleanup` miss it"
            return Hop(hop="state", status="warning", detail=detail, remedy=remedy)
    return Hop(hop="state", status="ok", detail=str(settings.state_dir))


def _local_registration(settings: LauncherSettings) -> Hop:
    try:
        Registry(settings.registry_dir).check()
    except LauncherError as error:
        problem, _, remedy = str(error).partition("; ")
        return Hop(hop="registration", status="failed", detail=problem, remedy=remedy)
    return Hop(hop="registration", status="ok", detail=f"{settings.registry_dir} on this machine")


async def _relay(settings: LauncherSettings) -> list[Hop]:
    """Lead a tunnel to a little web server of our own, and let the relay try it."""
    server = await asyncio.start_server(_answer, HOST, 0)
    async with server:
        line = line_settings(settings, local_port=server.sockets[0].getsockname()[1], instance_id="0" * 32)
        try:
            probed = await probe(line)
        except LineError as error:
            return _broken(error, settings)
        hops = [Hop(hop=name, status="ok") for name in _before("account")]
        hops.append(_account(probed))
        hops.append(Hop(hop="forward", status="ok", detail=f"port {probed.port} of the relay"))
        try:
            await query(line)
        except LineError as error:
            hops.append(_failed("registration", error))
        else:
            hops.append(Hop(hop="registration", status="ok"))
        hops.append(_tunnel(probed.health))
        provisioned = probed.agent != "sh"
        privacy = Hop(hop="privacy", status="ok", detail="a provisioned relay")
        hops.append(privacy if provisioned else Hop(hop="privacy", status="warning", detail=_PRIVACY))
        return [*hops, *_launchers(settings)]


def _launchers(settings: LauncherSettings) -> list[Hop]:
    """Return what launchers that run have against a way that was found to be well."""
    return [
        Hop(
            hop="launchers",
            status="warning",
            detail=printable(f"process {state.launcher_pid}, in {state.cwd}: {state.line.error}"),
            remedy="this trial came through: that launcher's next try, within a minute, should too",
        )
        for state in StateDirectory(settings.state_dir).read_here()
        if state.line and state.line.phase in ("retrying", "refused") and state.launcher_lives()
    ]


def _account(probed: ProbeResult) -> Hop:
    detail = f"enrolled as {probed.client}" if probed.client else "an ordinary account"
    if probed.startup_output is None:
        return Hop(hop="account", status="ok", detail=detail)
    detail += f", whose startup files print: {probed.startup_output}"
    remedy = "this line does not mind, other programs do: let ~/.bashrc and its like print only where `[ -t 1 ]`"
    return Hop(hop="account", status="warning", detail=detail, remedy=remedy)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say 200 to whatever was asked, once the question is over."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


def _tunnel(health: str) -> Hop:
    if health == "ok":
        return Hop(hop="tunnel", status="ok", detail="a request came through it from the relay")
    if health == "unverified":
        remedy = "nothing is wrong; install curl on the relay to have it verified"
        return Hop(hop="tunnel", status="warning", detail="the relay has no program to try it with", remedy=remedy)
    remedy = "something between sshd and that port may drop connections, such as a firewall on the relay"
    return Hop(hop="tunnel", status="failed", detail="a request from the relay did not come through", remedy=remedy)


def _broken(error: LineError, settings: LauncherSettings) -> list[Hop]:
    """Return all hops of a way that broke before the tunnel was tried."""
    is_about_the_forward = error.hop == "relay" and isinstance(error, LineRefused) and error.code in _FORWARD_CODES
    broken: HopName = "forward" if is_about_the_forward else _BROKEN_AT[error.hop]
    failed = _failed(broken, error)
    if settings.is_enrolled and broken in _OF_THE_ENROLMENT:
        failed.remedy += f"; if that relay is gone for good, the enrolment is in {settings.config_file.parent}"
    after = _RELAY_HOPS[_RELAY_HOPS.index(broken) + 1 :]
    return [
        *(Hop(hop=name, status="ok") for name in _before(broken)),
        failed,
        *(Hop(hop=name, status="not-reached") for name in after),
    ]


def _before(hop: HopName) -> tuple[HopName, ...]:
    return _RELAY_HOPS[: _RELAY_HOPS.index(hop)]


def _failed(hop: HopName, error: LineError) -> Hop:
    return Hop(hop=hop, status="failed", detail=printable(str(error)), remedy=printable(error.remedy))
