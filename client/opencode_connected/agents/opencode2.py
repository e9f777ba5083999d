"""OpenCode 2 as a program: what may be passed on to it, and the background service that serves all directories.

The service is the person's: it is found and started here, and never stopped. Its registry file says where it is and
what its password is; nothing in that file is believed before the process that it names is seen to own the port.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected.agents.listening import SeenListener, addresses, is_own
from opencode_connected.errors import LauncherError, OpenCodeMissing, UsageError
from opencode_connected.loopback import LoopbackEndpoint, Unanswered
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USER = "opencode"
"""Whom the service asks a password of."""

_MAX_RECORD_BYTES = 16 * 1024
_URL = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})/?")
_PASSWORD = re.compile(r"[\x21-\x7e]{1,512}")
_INFO_SECONDS = 3.0
_OPENAPI_SECONDS = 10.0
_MAX_RUNNING = 1000

_TAKES_VALUE = ("--session", "-s", "--prompt", "--log-level", "--completions", "--model", "-m", "--agent")
_REFUSED = {
    "--server": "the launcher makes this machine's own service reachable",
    "--standalone": "a private server is not reachable from afar; leave it out",
    "--port": "OpenCode 2 has one service, whose port `opencode service set port` sets",
    "--hostname": "OpenCode's service must listen on loopback only",
}
_NEEDED = frozenset(
    {
        "event.subscribe",
        "session.active",
        "session.create",
        "session.form.list",
        "session.form.reply",
        "session.get",
        "session.inbox.list",
        "session.interrupt",
        "session.list",
        "session.message.list",
        "session.permission.list",
        "session.permission.reply",
        "session.prompt",
    }
)
"""Operations of the API without which nothing could be driven."""


@dataclass(frozen=True)
class Record:
    """The service as its registry file has it."""

    version: str
    url: str
    port: int
    pid: int
    password: str = field(repr=False)

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password that the service asks for."""
        return USER, self.password


def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments to pass on; `UsageError` for one that would lead past the service."""
    for argument in arguments:
        if argument == "--":
            break
        flag = argument.partition("=")[0]
        if flag in _REFUSED:
            raise UsageError(f"{flag} cannot be passed on: {_REFUSED[flag]}")
    if next(iter(_positionals(arguments)), "") == "serve":
        raise UsageError(
            "serve cannot be passed on: a second server beside OpenCode's service disturbs its turns; use --headless"
        )
    return list(arguments)


def directory(arguments: Sequence[str], cwd: str) -> str:
    """Return where OpenCode works, without symbolic links: the directory among its arguments, else `cwd`."""
    for word in _positionals(arguments)[:1]:
        named = Path(cwd, word)
        if named.is_dir():
            return os.path.realpath(named)
    return os.path.realpath(cwd)


def _positionals(arguments: Sequence[str]) -> list[str]:
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*found, *rest]
        if argument in _TAKES_VALUE:
            next(rest, "")
        elif not argument.startswith("-"):
            found.append(argument)
    return found


def registry_file(environment: Mapping[str, str]) -> Path:
    """Return where the service says who and where it is."""
    state_home = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "~"), ".local", "state"))
    return Path(state_home).expanduser() / "opencode" / "service.json"


def log_file(environment: Mapping[str, str]) -> Path:
    """Return OpenCode's own log."""
    data_home = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "~"), ".local", "share"))
    return Path(data_home).expanduser() / "opencode" / "log" / "opencode.log"


def read_record(path: Path) -> Record | None:
    """Return what the registry file says; None if there is none that this user wrote for himself alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        is_private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not stat.S_ISREG(found.st_mode) or not is_private or found.st_size > _MAX_RECORD_BYTES:
            return None
        content = os.read(descriptor, _MAX_RECORD_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return _record(value) if isinstance(value, dict) else None


def _record(value: dict[str, object]) -> Record | None:
    url, pid, password, version = (value.get(key) for key in ("url", "pid", "password", "version"))
    if not (isinstance(url, str) and isinstance(password, str) and isinstance(version, str)):
        return None
    match = _URL.fullmatch(url)
    if match is None or not _PASSWORD.fullmatch(password) or type(pid) is not int or not 1 < pid < 2**31:
        return None
    port = int(match[2])
    if not 1024 <= port <= 65535:
        return None
    return Record(printable(version, limit=40), f"http://127.0.0.1:{port}", port, pid, password)


def verify(record: Record) -> str | None:
    """Return why `record` is not to be believed; None if its process is this user's and alone listens on its port.

    Raises `LauncherError` if the service can be reached from other machines.
    """
    found = listener(record)
    return found if isinstance(found, str) else None


def listener(record: Record) -> SeenListener | str:
    """Return what listens on the port of `record`, or, as `verify`, why that is not to be believed."""
    import psutil  # noqa: PLC0415 - 35 ms; asked only when OpenCode has come up

    from opencode_connected.bringup import exposure  # noqa: PLC0415 - as above

    try:
        process = psutil.Process(record.pid)
        seen = SeenListener(record.port, record.pid)
        if not is_own(process):
            return f"process {record.pid}, which OpenCode's registry file names, is another user's"
        listening = addresses(process, record.port)
    except psutil.NoSuchProcess:
        return f"process {record.pid}, which OpenCode's registry file names, has ended"
    except psutil.Error:
        return f"process {record.pid}, which OpenCode's registry file names, cannot be looked at"
    if not listening:
        return f"process {record.pid}, which OpenCode's registry file names, does not listen on port {record.port}"
    if exposed := exposure(listening):
        raise LauncherError(
            f"OpenCode's service listens on {exposed}, not only on loopback: `opencode service unset hostname`"
        )
    # Both looks were of one thing, and a connection reaches it and nobody else.
    if not (seen.is_own() and seen.is_there()):
        return (
            f"port {record.port}, which OpenCode's registry file names, is not, or not only, of process {record.pid}"
        )
    return seen


def running_service(environment: Mapping[str, str]) -> Record | None:
    """Return the service of this user, if it runs, is what it says it is, and answers. Takes up to 3 s."""
    record = read_record(registry_file(environment))
    try:
        return record if record and verify(record) is None and info(record) else None
    except LauncherError:
        return None


def info(record: Record, *, timeout: float = _INFO_SECONDS) -> bool:
    """Tell whether the service that `record` describes answers, and knows its password."""
    return _get(record, "/api/info", timeout) is not None


def running(record: Record) -> int | None:
    """Return how many turns run, subagents not counted; None if the service does not tell."""
    active = _get(record, "/api/session/active", _INFO_SECONDS)
    sessions = active.get("data") if isinstance(active, dict) else None
    if not isinstance(sessions, dict):
        return None
    roots = 0
    for session in list(sessions)[:_MAX_RUNNING]:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", session):
            continue
        known = _get(record, f"/api/session/{session}", _INFO_SECONDS)
        facts = known.get("data", known) if isinstance(known, dict) else {}
        roots += not (isinstance(facts, dict) and facts.get("parentID"))
    return roots


def missing_operations(record: Record) -> list[str]:
    """Return what this release needs and the service's description of its API does not have.

    Raises `Unanswered` if it cannot be had.
    """
    description = _get(record, "/openapi.json", _OPENAPI_SECONDS)
    paths = description.get("paths") if isinstance(description, dict) else None
    if not isinstance(paths, dict):
        raise Unanswered("OpenCode's service does not describe its API")
    there = {
        operation.get("operationId")
        for methods in paths.values()
        if isinstance(methods, dict)
        for operation in methods.values()
        if isinstance(operation, dict)
    }
    return sorted(_NEEDED - there)


def refuse_undrivable(record: Record) -> None:
    """Raise `OpenCodeMissing` if the service lacks an operation that is needed, `Unanswered` if it does not tell."""
    if missing := missing_operations(record):
        raise OpenCodeMissing(
            f"OpenCode {record.version} cannot be driven by this opencode-relay: its API has no {', '.join(missing)}",
            "update opencode-relay, or use a version of OpenCode that was tested",
        )


def _get(record: Record, path: str, timeout: float) -> object:
    try:
        status, body = LoopbackEndpoint(record.port, record.credentials).get(path, timeout=timeout)
        return json.loads(body) if status == 200 else None
    except (Unanswered, ValueError, RecursionError):
        return None
