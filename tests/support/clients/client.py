"""What every real client is to a test, and the clients that are programs of ours on an SDK."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from support.clients import installed
from support.clients.desktop import PATIENCE, ClientFailed
from support.clients.installed import PROGRAMS
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients.desktop import Desktop, RunningDesktop


@dataclass(frozen=True)
class Called:
    """What a call came to."""

    text: str
    progress: list[list[Any]] = field(default_factory=list)
    """[progress, total, message] of each notification, for those that show it."""


class RealClient:
    """A client on a person's desktop, which connects to the gateway at `url`; a context manager.

    What a client cannot do, its class says; a test does that step only with those that can.
    """

    name: ClassVar[str]
    """What it calls itself at the gateway."""
    document: ClassVar[str | None] = None
    """Its client id, if that is the address of a document; None: it registers."""
    shows_progress: ClassVar[bool] = True
    logs_out: ClassVar[bool] = False
    """Whether it has a command for that."""
    revokes: ClassVar[bool] = False
    """Whether that tells the gateway, and does not only forget the tokens."""

    def __init__(self, desktop: Desktop, url: str) -> None:
        self.desktop = desktop
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""

    def connect(self) -> None:
        """Connect for the first time: the person is sent to a browser, logs in and allows all."""
        raise NotImplementedError

    def tools(self) -> set[str]:
        """Return the tools that it is shown. It must not need the person."""
        raise NotImplementedError

    def is_let_in(self) -> bool:
        """Tell whether it connects with what it has, without the person."""
        return bool(self.tools())

    def call(self, tool: str, **arguments: Any) -> Called:
        """Call a tool."""
        raise NotImplementedError

    def a_day_passes(self) -> None:
        """Let it believe that its access token is over, if it looks at the clock and not at the gateway's answer."""

    def is_shut_out(self) -> bool:
        """Tell whether it is without a login now, and says so or sends the person to log in anew."""
        raise NotImplementedError

    def log_out(self) -> None:
        """Forget the login, as its own command does; for those that have one."""
        raise NotImplementedError


class Spoken(RealClient):
    """A program that answers JSON lines, and so does for a client what its user does; see `programs/lines.py`."""

    def command(self) -> list[str | Path]:
        """Return how it is started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.running: RunningDesktop = self.desktop.start(self.command(), talks=True)
        self._read = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.running.__exit__()

    def connect(self) -> None:
        self._say("tools")
        self.desktop.let_in(self.running)
        self._answer()

    def tools(self) -> set[str]:
        self._say("tools")
        return set(self._answer()[0])

    def call(self, tool: str, **arguments: Any) -> Called:
        self._say("call", tool=tool, arguments=arguments)
        text, progress = self._answer()
        return Called(text, progress)

    def is_shut_out(self) -> bool:
        visits = self.desktop.visits
        self._say("tools")
        eventually(lambda: self.desktop.visits > visits or self._lines(), "a browser, or an answer", within=PATIENCE)
        return self.desktop.visits == visits + 1

    def _say(self, what: str, **more: Any) -> None:
        assert self.running.process.stdin
        self.running.process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        self.running.process.stdin.flush()

    def _lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self.running.out.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()][self._read :]

    def _answer(self) -> tuple[Any, list[list[Any]]]:
        """Wait for the next answer; return it, and the progress that came before."""

        def answered() -> bool:
            if self.running.process.poll() is not None:
                raise ClientFailed(f"it ended: {self.running.said}")
            return any("progress" not in line for line in self._lines())

        eventually(answered, f"an answer of {self.name}", within=PATIENCE)
        lines = self._lines()
        last = next(number for number, line in enumerate(lines) if "progress" not in line)
        self._read += last + 1
        if "answer" not in lines[last]:
            raise ClientFailed(f"{lines[last]}: {self.running.said}")
        return lines[last]["answer"], [line["progress"] for line in lines[:last]]


class TypeScriptSdk1(Spoken):
    """The TypeScript SDK 1.x."""

    name = "TypeScript SDK 1"
    generation: ClassVar[int] = 1

    def command(self) -> list[str | Path]:
        node, modules = installed.typescript_sdk(self.generation)
        return [node, PROGRAMS / "typescript.mjs", modules, str(self.generation), self.url, self.name]


class TypeScriptSdk2(TypeScriptSdk1):
    """The TypeScript SDK 2.x."""

    name = "TypeScript SDK 2"
    generation = 2


class _Python(Spoken):
    """A Python client. It looks at its own clock for when to refresh."""

    program: ClassVar[str]

    def python(self) -> Path:
        return installed.python2()

    def command(self) -> list[str | Path]:
        return [self.python(), PROGRAMS / self.program, self.url, self.name]

    def a_day_passes(self) -> None:
        self._say("tomorrow")
        self._answer()


class PythonSdk1(_Python):
    """The Python SDK, `mcp` 1.x."""

    name = "Python SDK 1"
    program = "python_sdk1.py"

    def python(self) -> Path:
        return installed.python1()


class PythonSdk2(_Python):
    """The Python SDK, `mcp` 2.x."""

    name = "Python SDK 2"
    program = "python_sdk2.py"


class FastMcp3(_Python):
    """FastMCP 3.x."""

    name = "FastMCP 3"
    program = "fastmcp_client.py"

    def python(self) -> Path:
        return installed.python1()


class FastMcp4(_Python):
    """FastMCP 4.x."""

    name = "FastMCP 4"
    program = "fastmcp_client.py"


class McpRemote(Spoken):
    """mcp-remote, the bridge for clients that know standard input and output alone."""

    name = "MCP CLI Proxy"

    def command(self) -> list[str | Path]:
        return [installed.python2(), PROGRAMS / "through_stdio.py", *installed.mcp_remote(), self.url]
