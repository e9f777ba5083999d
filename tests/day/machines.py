"""The three machines of the day, the relay that they are connected to, and the gateway before it."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from client.launched import Launched, Machine
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.people.users import Users
from support.chat.mcp_client import SERVER_COMMAND, ToolClient
from support.gateway.authorization import CHEAP_HASH
from support.gateway.chat_client import Memory
from support.gateway.person import CALLBACK, Person
from support.gateway.public_gateway import GATEWAY_COMMAND, PublicGateway
from support.line.sshd import Sshd
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.opencode2 import OpenCode2Home, Service2
from support.opencodes.scripted_model import ScriptedModel
from support.processes import named
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]")
_READ_SECONDS = 90.0
_TITLES = {"staging": "Deploy to staging", "Rebase": "Rebase", "pipeline": "The pipeline"}
NAMES = ("desktop", "laptop", "workbox")


class Screen:
    """What the person sees who sits at the laptop."""

    def __init__(self, launched: Launched) -> None:
        self._launched = launched

    @property
    def text(self) -> str:
        """All that was drawn, without escapes."""
        return _ESCAPES.sub("", self._launched.screen)

    def type(self, line: str) -> None:
        """Type a line there."""
        self._launched.send(line)
        # It draws a word as a whole, and may skip the blanks between two.
        eventually(lambda: line.rsplit(maxsplit=1)[-1] in self.text, "what was typed")
        self._launched.send("\r")


@dataclass(frozen=True)
class Day:
    """What the story is about. `places`: what stands for the directories of this machine."""

    model: ScriptedModel
    gateway: PublicGateway
    screen: Screen
    repository: Path
    places: dict[str, str]
    workbox: Launched

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Let the workbox sleep: its launcher does nothing, and its connection is cut."""
        launcher = self.workbox.launcher()
        lines = named("ssh", launcher.children())
        launcher.suspend()
        try:
            for line in lines:
                line.kill()
            yield
        finally:
            launcher.resume()

    @asynccontextmanager
    async def phone(self) -> AsyncIterator[ToolClient]:
        """Connect as a chat client does that knows the URL alone, and let Ann log in."""
        person = Person(self.gateway.trust())
        url = f"{self.gateway.front_url}/mcp"
        oauth = OAuthClientProvider(
            url,
            OAuthClientMetadata(client_name="Phone", redirect_uris=[AnyUrl(CALLBACK)]),
            Memory(),
            redirect_handler=person.visit,
            callback_handler=person.came_back,
        )
        async with (
            httpx2.AsyncClient(
                auth=oauth, verify=self.gateway.trust(), trust_env=False, timeout=_READ_SECONDS
            ) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield ToolClient(client)


@contextmanager
def day(root: Path, opencode_bin: Path, opencode2_bin: Path) -> Iterator[Day]:
    """Start all of it: OpenCode 1 with a screen, OpenCode 2, another OpenCode 1, sshd, the gateway, Caddy."""
    registry = root / "registry"
    with ExitStack() as stack:
        model = stack.enter_context(ScriptedModel(titles=_TITLES))
        relay = stack.enter_context(Sshd(root / "relay"))
        homes = {
            "laptop": OpenCodeHome(root / "laptop", model.base_url, binary=opencode_bin),
            "desktop": OpenCode2Home(root / "desktop", model.base_url, binary=opencode2_bin),
            "workbox": OpenCodeHome(root / "workbox", model.base_url, binary=opencode_bin, asks=False),
        }
        machines = {name: _machine(home, registry) for name, home in homes.items()}
        _commit(machines["laptop"].project)
        stack.enter_context(Service2(homes["desktop"], started=False))
        launched = {
            name: stack.enter_context(
                Launched(
                    machines[name],
                    *(() if name == "laptop" else ("--headless",)),
                    env={"RELAY_SSH_CMD": relay.ssh_command, "INSTANCE_NAME": name},
                )
            )
            for name in NAMES
        }
        gateway = stack.enter_context(_gateway(root / "gateway", registry))
        screen = Screen(launched["laptop"])
        for each in launched.values():
            each.registered()
        eventually(lambda: "Ask anything" in screen.text, "its prompt")
        places = {str(machine.project): f"/home/ann/{machine.project.name}" for machine in machines.values()}
        yield Day(model, gateway, screen, machines["laptop"].project, places, launched["workbox"])


def _machine(home: OpenCodeHome, registry: Path) -> Machine:
    project = home.root / {"laptop": "shop", "desktop": "game", "workbox": "data"}[home.root.name]
    project.mkdir()
    return Machine(home, registry, project, home.root / ".local" / "state", home.root / ".config")


def _commit(repository: Path) -> None:
    (repository / "README.md").write_text("# Teh shop\n")
    git = ("git", "-c", "user.name=ann", "-c", "user.email=ann@example.org")
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "begin")):
        subprocess.run([*git, *arguments], cwd=repository, check=True)


def _gateway(directory: Path, registry: Path) -> PublicGateway:
    """Return a gateway with Ann as its person, that lets a chat client in."""
    env = {
        "RELAY_REGISTRY_DIR": str(registry),
        "RELAY_STATE_DIR": str(directory / "journal"),
        "DISCOVERY_INTERVAL_MS": "1000",
    }
    gateway = PublicGateway(directory, registry, entry={"command": str(SERVER_COMMAND), "env": env})
    Users(directory / "data" / "users.json").add("ann", CHEAP_HASH, CAPABILITIES)
    allow = [str(GATEWAY_COMMAND), "--config", str(gateway.config), "clients", "allow", "--minutes", "60"]
    subprocess.run(allow, check=True, capture_output=True)
    return gateway
