"""The gateway as a real client meets it: the product's commands, Caddy's TLS, one person, and what became of it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from opencode_gateway.oauth.enrolment import close_window, open_window
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from opencode_gateway.store import FILE_NAME, Store
from support.gateway import fake_client_hosts
from support.gateway.person import PASSWORD
from support.gateway.public_gateway import GATEWAY_COMMAND, PublicGateway
from support.gateway.service import fixture_entry

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.oauth.sessions import LoginSession
    from support.gateway.fake_client_hosts import ClientHosts

CLIENTS = {
    "known": [
        *("claude-code", "codex", "opencode", "inspector", "mcp-remote"),
        *("vscode", "cursor", "goose", "librechat@chat.example", "open-webui@ai.example"),
    ]
}
"""`clients` of `gateway.json`: all that are known by name, besides those that are on by default."""
PERSON = "ann"
TOOLS = {"instances", "read", "reply", "send"}
"""Of the fixture server, those that a person who may do all is shown. It has others."""
_COMMAND_SECONDS = 60.0


class Front(PublicGateway):
    """A gateway with the fixture server behind it and `ann`, who may do all; a context manager."""

    def __init__(self, directory: Path, hosts: ClientHosts) -> None:
        super().__init__(
            directory, directory / "registry", entry=fixture_entry(), env=hosts.environment(), clients=CLIENTS
        )
        self._command[:1] = [sys.executable, fake_client_hosts.__file__]
        self.url_to_paste = f"{self.front_url}/mcp"

    def start(self) -> None:
        """Start it, and make the person."""
        self.command("users", "add", PERSON, stdin=PASSWORD)
        super().start()

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Run `opencode-gateway` with these arguments, as its owner does; return what it says."""
        done = subprocess.run(
            [str(GATEWAY_COMMAND), "--config", str(self.config), *arguments],
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # What the owner does and sees between two steps of a client. The commands themselves have tests of their own, and
    # each takes a second to start.

    def allow_clients(self) -> None:
        """Open a window."""
        with self._store() as store:
            open_window(store, minutes=10, now=time.time())

    def close_window(self) -> None:
        """Close it."""
        with self._store() as store:
            close_window(store, now=time.time())

    def sessions(self) -> list[LoginSession]:
        """Return who is logged in."""
        with self._store() as store:
            return list_sessions(store)

    def session(self) -> LoginSession:
        """Return the only login there is."""
        (session,) = self.sessions()
        return session

    def revoke_sessions(self) -> None:
        """End all logins."""
        with self._store() as store:
            revoke_sessions(store)

    def let_a_day_pass(self) -> None:
        """Make every access token one that is over, as each is a day after it was made."""
        with self._store() as store, store.transaction() as db:
            aged = db.execute("UPDATE tokens SET expires_at = 1 WHERE kind = 'access'").rowcount
        assert aged, "there is no access token"

    def _store(self) -> closing[Store]:
        return closing(Store(self._data_dir / FILE_NAME))

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the audit lines of this event."""
        return [line for line in self.audit() if line["event"] == event]
