"""The real gateway in a process of its own, with static tokens where the product has sign-in.

`gateway_program.py CONFIG TOKENS [TOKEN]`: `TOKENS` is a JSON file for fastmcp's `StaticTokenVerifier`. With `TOKEN`,
requests without one count as made with it, for test programs that cannot send any.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastmcp.server.auth import StaticTokenVerifier

from opencode_gateway.app import build_app
from opencode_gateway.audit import AuditLog
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.configuration import load_configuration
from opencode_gateway.service import log_to_stderr, serve

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


def with_token(app: ASGIApp, token: str) -> ASGIApp:
    """Return `app` as whoever has `token` finds it."""
    added = (b"authorization", f"Bearer {token}".encode())

    async def send_it_along(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(name == added[0] for name, _ in scope["headers"]):
            scope = {**scope, "headers": [*scope["headers"], added]}
        await app(scope, receive, send)

    return send_it_along


if __name__ == "__main__":
    log_to_stderr()
    configuration = load_configuration(Path(sys.argv[1]))
    auth = StaticTokenVerifier(json.loads(Path(sys.argv[2]).read_text()))
    app = build_app(
        configuration, load_servers(configuration.servers_file), auth, AuditLog(configuration.audit), os.environ
    )
    for token in sys.argv[3:]:
        app = with_token(app, token)
    serve(app, configuration)
