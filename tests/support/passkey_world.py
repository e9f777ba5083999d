"""The gateway's pages over https with real sign-in, passkeys and audit log, and a scripted OpenCode server behind."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from argon2.profiles import CHEAPEST
from fastmcp import Client, FastMCP
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from opencode_gateway.audit import AuditLog
from opencode_gateway.authentication import build_auth
from opencode_gateway.calls.changes import Changes
from opencode_gateway.calls.source import OpenCodeSource
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.configuration import MCP_PATH, Configuration
from opencode_gateway.door.guards import guarded
from opencode_gateway.pages.signatures import DecisionSignatures
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in.passwords import Passwords
from opencode_gateway.store import FILE_NAME, Store
from opencode_pages.documents import ASK, INBOX, JSON, InboxDocument
from opencode_pages.routes import routes
from support.authorization import Clock
from support.browser import HttpsSite, certificate
from support.fake_pages import PERMISSION

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from starlette.requests import Request

PASSWORD = "correct horse battery"
RELAY = "relay.example.org"


class FakeChild:
    """An OpenCode server with one ask at a time, in this process."""

    def __init__(self) -> None:
        self.ask = PERMISSION
        self.replies: list[dict[str, Any]] = []
        self._server: FastMCP[None] = FastMCP("fake")
        self._server.resource(ASK, mime_type=JSON)(self._ask)
        self._server.resource(INBOX, mime_type=JSON)(lambda: InboxDocument().model_dump_json())
        self._server.tool(self._reply, name="reply")

    def client(self) -> Client[Any]:
        return Client(self._server)

    def _ask(self, handle: str) -> str:
        return self.ask.model_copy(update={"handle": handle}).model_dump_json()

    def _reply(self, instance: str, ask: str, answer: str) -> str:
        self.replies.append({"instance": instance, "ask": ask, "answer": answer})
        return "done"


class PasskeyWorld:
    """One relay with `ann` and `bob`, and another site of an attacker's on the same host, at another port."""

    def __init__(self, directory: Path, stack: ExitStack, **settings: Any) -> None:
        files = certificate(directory, RELAY)
        self.relay, self.other = HttpsSite(RELAY, files), HttpsSite(RELAY, files)
        self.clock = Clock()
        self.users = Users(directory / "users.json")
        for name in ("ann", "bob"):
            self.users.add(name, Passwords(CHEAPEST).hash(PASSWORD), CAPABILITIES)
        self.store = Store(directory / FILE_NAME)
        stack.callback(self.store.close)
        self._log = io.StringIO()
        log = AuditLog(configuration_of(self.relay.url, directory).audit, stream=self._log)
        configuration = configuration_of(self.relay.url, directory, **settings)
        auth = build_auth(configuration, self.store, log.write, clock=self.clock)
        self.child = FakeChild()
        wanted = configuration.passkey_for
        source = OpenCodeSource(self.child, log, Changes(None), self.relay.url, wanted)  # type: ignore[arg-type] # a fake
        signatures = DecisionSignatures(auth.passkeys, wanted, log.write)
        shown = [*auth.get_routes(MCP_PATH), *routes(source, auth.door, signatures=signatures)]
        self.passkeys = auth.passkeys
        self.relay.app = guarded(Starlette(routes=shown), self.relay.url)
        self.other.app = Starlette(routes=[Route("/", _blank)])
        stack.enter_context(self.relay)
        stack.enter_context(self.other)

    def audit(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the audit log about this."""
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


def configuration_of(url: str, directory: Path, **settings: Any) -> Configuration:
    return Configuration.model_validate({"public_url": url, "data_dir": directory, **settings})


async def _blank(_request: Request) -> Response:
    return HTMLResponse("<h1>Elsewhere</h1>")
