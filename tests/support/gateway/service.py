"""A running gateway for tests: the real service in a process of its own, and real MCP clients for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import httpx2
import psutil
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from support.chat.mcp_client import ToolClient
from support.chat.plain_http import NO_TLS
from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from support.chat.mcp_client import Era

FIXTURE_SERVER = Path(__file__).with_name("fixture_server.py")
_ROOT = Path(__file__).parents[3]
COMMAND = Path(sys.executable).parent / "opencode-gateway"
_PROGRAM = Path(__file__).with_name("gateway_program.py")
_START_SECONDS = 90.0
"""It takes 2 s alone, much longer when the whole suite shares two cores."""
_STOP_SECONDS = 60.0


def token(name: str, *capabilities: str, kind: str = "token") -> dict[str, Any]:
    """Return what a token of that person may do, as `StaticTokenVerifier` takes it."""
    claims = {"login": name, "client_name": f"{name}'s chat", "kind": kind}
    return {
        "client_id": f"client-of-{name}",
        "scopes": list(capabilities),
        "subject": name,
        "claims": claims,
        **claims,
    }


TOKENS = {
    "all-token": token("ann", "observe", "approve", "drive"),
    "observe-token": token("olga", "observe"),
    "approve-token": token("arno", "approve"),
    "nothing-token": token("nemo"),
    "person-token": token("ann", "observe", "approve", kind="password"),
}


def fixture_entry(**more: object) -> dict[str, Any]:
    """Return an entry of `servers.json` for the fixture server."""
    return {"command": sys.executable, "args": [str(FIXTURE_SERVER)], **more}


class Gateway:
    """A gateway with `servers` as its `servers.json` and `settings` in its `gateway.json`; a context manager."""

    def __init__(
        self,
        directory: Path,
        servers: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        open_with: str | None = None,
        **settings: object,
    ) -> None:
        """`open_with`: a token that counts as sent where none is."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = directory / "gateway.json"
        self.stdout, self.stderr = directory / "stdout", directory / "stderr"
        self._tokens = directory / "tokens.json"
        self._tokens.write_text(json.dumps(TOKENS))
        servers_file = directory / "servers.json"
        servers_file.write_text(json.dumps(servers))
        values = {
            "public_url": self.url,
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": str(directory / "data"),
            "servers_file": str(servers_file),
        }
        self.config.write_text(json.dumps(values | settings))
        self._env = {
            **{name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # Of this checkout, also where another one's environment runs it.
            "PYTHONPATH": os.pathsep.join(str(_ROOT / part) for part in ("tests", "server")),
            **(env or {}),
        }
        self._command = [sys.executable, str(_PROGRAM), str(self.config), str(self._tokens)]
        self._command += [open_with] if open_with else []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process(self) -> psutil.Process:
        """The gateway."""
        assert self._process is not None, "not started"
        return psutil.Process(self._process.pid)

    @property
    def front_url(self) -> str:
        """Where chat clients reach it."""
        return self.url

    def trust(self) -> ssl.SSLContext:
        """Return whom those clients trust."""
        return NO_TLS

    def start(self) -> None:
        """Start it, and wait until it answers: it listens before it is ready."""
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            eventually(self._answers, f"a gateway on port {self.port}", within=_START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """End it as a service manager does; return its exit code."""
        assert self._process is not None, "not started"
        self._process.terminate()
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> httpx.Response:
        """Send it one HTTP request; `headers` replace those that a client would send."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30.0, verify=NO_TLS) as client:
            return client.request(method, path, headers=headers, content=content)

    def owner(self, *arguments: str, types: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as the owner of the relay does."""
        return subprocess.run(
            [str(COMMAND), "--config", str(self.config), *arguments],
            input=types,
            capture_output=True,
            text=True,
            check=False,
        )

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Send it a GET request."""
        return self.request("GET", path, headers)

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit lines on its standard output."""
        return [json.loads(line) for line in self.stdout.read_text().splitlines()]

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return self.stderr.read_text(errors="replace")

    @asynccontextmanager
    async def client(self, token: str = "all-token", *, era: Era = "2026-07-28") -> AsyncIterator[ToolClient]:  # noqa: S107 - of this file's
        """Connect as whoever has `token`."""
        async with (
            httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {token}"}, timeout=60.0, trust_env=False, verify=self.trust()
            ) as http,
            Client(streamable_http_client(f"{self.front_url}/mcp", http_client=http), mode=era) as client,
        ):
            yield ToolClient(client)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self._process.returncode}: {self.log[-2000:]}")
        try:
            return self.get("/healthz").status_code in {200, 503}
        except httpx.TransportError:
            return False
