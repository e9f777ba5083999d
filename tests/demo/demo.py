"""`make demo`: the whole way once. A real OpenCode started by the launcher, the server, and a real MCP client.

OpenCode runs in a HOME of its own with a scripted model behind it. In the environment:

V=1, V=2 OpenCode 1 or OpenCode 2 alone; without it first the one, then the other
REAL=1   your own HOME, OpenCode, configuration and provider instead (two short prompts are sent to it)
RELAY=1  through a throw-away sshd on loopback, as if the server ran on another machine
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Confirm
from rich.text import Text

from support.chat.mcp_client import Answer, Progress, relay_client
from support.line.sshd import Sshd
from support.opencodes.opencode import OpenCodeHome, find_opencode
from support.opencodes.opencode2 import OpenCode2Home, Service2, find_opencode2
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.chat.mcp_client import RelayClient

LAUNCHER = Path(sys.executable).parent / "opencode-connected"
NAME = "demo"
_START_SECONDS = 90.0
"""A first start of OpenCode on a slow machine."""
_STOP_SECONDS = 40

SCRIPTED_PROMPTS = ("Say hello.", "[BASH:echo hello from the shell]")
REAL_PROMPTS = ("Say hello in five words.", "Run the shell command `echo hello` and say what it printed.")


class DemoError(Exception):
    """Something did not go as it should; its text says what, and what to look at."""


@dataclass(frozen=True)
class Setting:
    """What the demo runs on."""

    console: Console
    real: bool
    relay: bool
    generation: int
    scratch: Path
    registry_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "registry_dir", self.scratch / "registry")


@contextmanager
def launcher_environment(setting: Setting) -> Iterator[dict[str, str]]:
    """Give the environment that the launcher runs in, with what it needs running behind it."""
    with ExitStack() as stack:
        if setting.real:
            if not shutil.which("opencode"):
                raise DemoError("REAL=1 needs your own opencode on PATH; how to install it: https://opencode.ai/docs")
            environment = dict(os.environ)
            setting.console.print("Your own OpenCode, with your own provider.")
        else:
            model = stack.enter_context(ScriptedModel())
            home = stack.enter_context(scripted_home(setting, model.base_url))
            environment = home.environment({"TERM": os.environ.get("TERM", "xterm-256color")})
            setting.console.print(
                f"A scripted model answers at {model.base_url}; OpenCode {setting.generation} has a HOME of its own."
            )
        if setting.relay:
            relay = stack.enter_context(Sshd(setting.scratch / "sshd"))
            environment["RELAY_SSH_CMD"] = relay.ssh_command
            setting.console.print(f"A throw-away sshd plays the relay on port {relay.port}.")
        yield environment | {"RELAY_REGISTRY_DIR": str(setting.registry_dir), "INSTANCE_NAME": NAME}


@contextmanager
def scripted_home(setting: Setting, model_url: str) -> Iterator[OpenCodeHome]:
    """Give the HOME of an OpenCode with the scripted model; whatever still runs there at the end is ended."""
    root = setting.scratch / "home"
    if setting.generation == 1:
        yield OpenCodeHome(root, model_url, binary=find_opencode())
        return
    home = OpenCode2Home(root, model_url, binary=find_opencode2())
    # The launcher starts the service, and leaves it running: its turns outlive the screen.
    with Service2(home, started=False):
        yield home


@contextmanager
def launched(setting: Setting) -> Iterator[None]:
    """Run the launcher with OpenCode's full-screen interface in a terminal of its own; end it on leaving."""
    project = setting.scratch / "project"
    project.mkdir()
    with launcher_environment(setting) as environment:
        terminal = pexpect.spawn(
            str(LAUNCHER), cwd=str(project), env=environment, dimensions=(40, 120), timeout=None, encoding="utf-8"
        )
        screen = Screen(terminal)
        try:
            registration = setting.registry_dir / f"{NAME}.json"
            eventually(lambda: registration.exists() or screen.ended, "the registration", within=_START_SECONDS)
            if not registration.exists():
                raise DemoError(f"the launcher ended: {screen.text}")
            registered = registration.read_text().strip()
            setting.console.print("opencode-connected runs OpenCode, and it is registered:")
            setting.console.print(f"  {registered}", markup=False, style="dim")
            fields = json.loads(registered)
            if setting.relay and fields["port"] == fields["localPort"]:
                raise DemoError("the launcher did not go through the relay")
            yield
        finally:
            terminal.kill(15)
            screen.close()
        eventually(lambda: not registration.exists(), "the removal of the registration", within=_STOP_SECONDS)
        setting.console.print("The launcher ended; its registration is gone.")


class Screen:
    """Reads what a terminal shows, so that its program never waits for a reader."""

    def __init__(self, terminal: pexpect.spawn[str]) -> None:
        self._terminal = terminal
        self._shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                self._shown += self._terminal.read_nonblocking(4096, timeout=None)
        except (pexpect.EOF, OSError):
            return

    @property
    def ended(self) -> bool:
        """Whether the program is gone."""
        return not self._reader.is_alive()

    @property
    def text(self) -> str:
        """The end of what was shown, as plain text."""
        return Text.from_ansi(self._shown.replace("\r", "")).plain.strip()[-1000:]

    def close(self) -> None:
        """Wait for the program's end."""
        self._reader.join(_STOP_SECONDS)
        self._terminal.close(force=True)


class Shown:
    """A client whose calls and answers are shown."""

    def __init__(self, client: RelayClient, console: Console) -> None:
        self._client = client
        self._console = console

    async def call(self, tool: str, **arguments: object) -> Answer:
        """Call a tool, show it, and raise `DemoError` if it failed."""
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self._console.print(f"\n[bold cyan]▶ {tool}[/]({escape(shown)})")

        def show(progress: Progress) -> None:
            self._console.print(f"  … {progress.message}", markup=False, style="dim")

        answer = await self._client.call(tool, on_progress=show, **arguments)
        style = "red" if answer.is_error else "green"
        self._console.print(Panel(escape(answer.text), border_style=style))
        if answer.is_error:
            raise DemoError(f"{tool} failed")
        return answer

    async def instance_is_up(self) -> None:
        """Wait until the instance is idle."""

        async def idle() -> bool:
            rows = (await self._client.call("instances")).structured["instances"]
            return [(row["name"], row["state"]) for row in rows] == [(NAME, "idle")]

        await eventually_async(idle, "the instance", within=_START_SECONDS)


@asynccontextmanager
async def connected(setting: Setting) -> AsyncIterator[Shown]:
    """Start the server with a client."""
    async with relay_client(setting.registry_dir) as client:
        setting.console.print("opencode-mcp runs, and an MCP client is connected to it.")
        shown = Shown(client, setting.console)
        await shown.instance_is_up()
        yield shown


async def tour(setting: Setting) -> None:
    """Call the tools, one after another."""
    hello, command = REAL_PROMPTS if setting.real else SCRIPTED_PROMPTS
    async with connected(setting) as shown:
        await shown.call("instances")
        await shown.call("send", instance=NAME, message=hello)
        answer = await shown.call("send", instance=NAME, message=command)
        while answer.structured.get("asks"):
            answer = await settle(setting, shown, answer)
        if answer.structured["result"] != "done":
            raise DemoError(f"the turn ended as {answer.structured['result']}")
        await shown.call("read", instance=NAME, message_limit=4)


async def settle(setting: Setting, shown: Shown, waiting: Answer) -> Answer:
    """Show what the agent asks, and answer it: the scripted one yes, the real one as the person says."""
    ask = waiting.structured["asks"][0]["id"]
    await shown.call("reply", instance=NAME, ask=ask)
    allowed = not setting.real or (sys.stdin.isatty() and Confirm.ask("Allow that once?"))
    return await shown.call("reply", instance=NAME, ask=ask, answer="once" if allowed else "reject")


def main() -> int:
    """Run the demo with each generation that is wanted and return the exit code."""
    console = Console(width=min(Console().width, 118))
    wanted = os.environ.get("V") or "1 2"
    if not set(wanted.split()) <= {"1", "2"}:
        console.print(f"[bold red]V={escape(wanted)} is no generation of OpenCode:[/] V=1, V=2, or neither for both")
        return 2
    # Of one's own there is one, whatever its generation.
    generations = [1] if os.environ.get("REAL") else sorted(map(int, set(wanted.split())))
    for generation in generations:
        if code := run_once(console, generation):
            return code
    console.print("[bold green]All of it worked, and nothing is left behind.[/]")
    return 0


def run_once(console: Console, generation: int) -> int:
    """Run the demo once and return the exit code."""
    if not os.environ.get("REAL"):
        console.rule(f"OpenCode {generation}")
    with tempfile.TemporaryDirectory(prefix="opencode-relay-demo-") as scratch:
        setting = Setting(
            console,
            real=bool(os.environ.get("REAL")),
            relay=bool(os.environ.get("RELAY")),
            generation=generation,
            scratch=Path(scratch),
        )
        try:
            with launched(setting):
                asyncio.run(tour(setting))
        except (DemoError, AssertionError) as error:
            console.print(f"[bold red]The demo failed:[/] {escape(str(error))}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
