"""A guard in this process, before a real agent or a fake one, and clients that ask it."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from opencode_connected.guard.policy import DEFAULT_RIGHTS, OpenedDirectory, Policy, Right
from opencode_connected.guard.server import Guard
from opencode_connected.guard.upstream import Target
from support.chat.plain_http import NO_TLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from opencode_connected.guard.opening import OpensDirectories
    from support.opencodes.opencode import ServedOpenCode

CREDENTIALS = ("opencode", "the guard's own")


@dataclass
class Known:
    """Knows where the agent is: `targets` in turn, each after the last one was not there any more."""

    targets: list[Target | None]
    looks: int = 0

    async def target(self) -> Target | None:
        return self.targets[0]

    async def moved(self, seen: Target) -> Target | None:
        assert seen == self.targets[0]
        self.looks += 1
        if len(self.targets) > 1:
            del self.targets[0]
        return self.targets[0]


@dataclass
class Agent:
    """A real OpenCode to stand behind the guard, and how to reach it straight."""

    generation: int
    served: ServedOpenCode
    directory: Path
    password: str | None

    @property
    def target(self) -> Target:
        version = "2.0.15" if self.generation == 2 else "1.18.33"
        return Target(self.served.url, basic("opencode", self.password), self.generation, version)

    def straight(self) -> httpx.Client:
        """Return a client that asks the agent itself."""
        auth = httpx.BasicAuth("opencode", self.password) if self.password else None
        return httpx.Client(base_url=self.served.url, auth=auth, timeout=60, trust_env=False, verify=NO_TLS)

    def session(self, directory: Path) -> str:
        """Make a session straight, and return its id."""
        directory.mkdir(exist_ok=True)
        with self.straight() as client:
            if self.generation == 1:
                made = client.post("/session", params={"directory": str(directory)}, json={})
                return str(made.raise_for_status().json()["id"])
            made = client.post("/api/session", json={"location": {"directory": str(directory)}})
            return str(made.raise_for_status().json()["data"]["id"])

    def of(self, session: str) -> str:
        """Return the path of a session."""
        return f"/api/session/{session}" if self.generation == 2 else f"/session/{session}"


def basic(user: str, password: str | None) -> str | None:
    """Return the header for a password."""
    return None if password is None else "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def opened(*directories: Path | str, rights: Iterable[Right] = DEFAULT_RIGHTS) -> Policy:
    """Return a policy with directories that launchers opened."""
    entries = (OpenedDirectory(str(path), Path(path).name, opened=True) for path in directories)
    return Policy(frozenset(rights), tuple(entries))


_LAST_REQUEST = b"GET /last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@dataclass
class Guarded:
    """A guard that listens: on `socket` without a password, on `port` with `CREDENTIALS`."""

    guard: Guard
    client: httpx.AsyncClient
    socket: Path
    port: int
    policy: list[Policy]
    said: list[str] = field(default_factory=list)

    async def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, then a request that ends the connection, and return all that comes back."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(request + _LAST_REQUEST)
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def guarded(
    upstream: Known | Target, policy: Policy, opener: OpensDirectories | None = None
) -> AsyncIterator[Guarded]:
    """Run a guard in this process."""
    known = Known([upstream]) if isinstance(upstream, Target) else upstream
    current = [policy]
    said: list[str] = []
    guard = Guard(known, lambda: current[0], log=said.append, opener=opener)
    # Its own directory: pytest's are too long for a socket's name.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "guard.sock"
        try:
            await guard.listen_on_socket(path)
            port = await guard.listen_on_port(CREDENTIALS)
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
                yield Guarded(guard, client, path, port, current, said)
        finally:
            await guard.close()


def refusal(answer: httpx.Response) -> str:
    """Return the sentence of a refusal, after checking its shape."""
    assert answer.status_code == 403, (answer.status_code, answer.text)
    told: dict[str, Any] = answer.json()
    assert told["name"] == "GuardRefused"
    return str(told["data"]["message"])
