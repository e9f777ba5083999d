"""Runs the gateway: uvicorn on loopback, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

import uvicorn

from opencode_gateway.app import build_app
from opencode_gateway.audit import AuditLog
from opencode_gateway.authentication import build_auth
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.door.draining import Draining
from opencode_gateway.errors import GatewayError, StoreLocked
from opencode_gateway.logs import LineFormatter, LogRateLimit, NoContent
from opencode_gateway.oauth.redirects import RedirectRules
from opencode_gateway.refusal_log import Refusals
from opencode_gateway.store import FILE_NAME, Store

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from starlette.types import ASGIApp

    from opencode_gateway.configuration import Configuration

DRAIN_SECONDS: Final = 6.0
"""Calls that run when it is told to end have so long; with the children's own end that stays below Docker's 10 s."""
CLOSE_SECONDS: Final = 1
"""And what is no call, as half a request, so long after that."""
CONNECTIONS: Final = 512
"""More than these at once are answered with 503."""
HEADER_BYTES: Final = 32 * 1024
_LOOPBACK: Final = ["127.0.0.1", "::1"]

_log = logging.getLogger(__name__)


def run(configuration: Configuration) -> None:
    """Serve until SIGTERM or SIGINT, which also end a start that takes long.

    Raises:
        GatewayError: it cannot start, and a person can mend why.
    """
    os.umask(0o077)
    # Without handlers, the first process of a container is deaf to them. Ending when told to is no failure.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))
    log_to_stderr()
    servers = load_servers(configuration.servers_file)
    log = AuditLog(configuration.audit)
    store = opened(configuration.data_dir / FILE_NAME)
    refusals = Refusals(opened(configuration.data_dir / FILE_NAME), on_event=log.write)
    try:
        auth = build_auth(configuration, store, log.write, refusals.record)
        app = build_app(
            configuration,
            servers,
            auth,
            log,
            os.environ,
            door=auth.door,
            signatures=auth.signatures,
            account=auth.account,
            directory=auth.directory,
            origins=RedirectRules(configuration.clients, store).origins,
            on_refusal=refusals.record,
        )
        serve(app, configuration)
    finally:
        refusals.close()
        log.close()


def opened(path: Path) -> Store:
    """Open the database. Whoever has it locked is waited for: a start that fails would be no earlier start.

    Raises:
        StoreError: it cannot be opened, and waiting would not help.
    """
    waits = False
    while True:
        try:
            return Store(path)
        except StoreLocked:
            if not waits:
                _log.warning("%s is locked by another program, such as a command: the service waits for it", path)
            waits = True


def serve(app: ASGIApp, configuration: Configuration) -> None:
    """Serve `app` until a signal ends it.

    Raises:
        GatewayError: its address is taken, or it did not start.
    """
    sockets = [listening(configuration.listen)]
    draining = Draining(app)
    server = _Server(
        uvicorn.Config(
            draining,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            # Lines of requests would hold authorization codes.
            access_log=False,
            server_header=False,
            proxy_headers=configuration.behind_proxy,
            forwarded_allow_ips=_LOOPBACK,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        ),
        draining,
    )
    # uvicorn raises the signal that ended it once more; ending when told to is no failure.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)
    server.run(sockets)
    if not server.started:
        raise GatewayError("the gateway did not start; its log says why")


class _Server(uvicorn.Server):
    """Drains before it ends, and goes on to listen meanwhile.

    uvicorn would close its sockets at once, and sse-starlette, which looks whether it ends, every stream of answers.
    """

    def __init__(self, config: uvicorn.Config, draining: Draining) -> None:
        super().__init__(config)
        self._draining = draining
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and be ready to drain from then on."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal; end at once at another, or if nothing is served yet."""
        if self._loop is None or self._draining.has_begun:
            super().handle_exit(sig, frame)
            return
        self._draining.has_begun = True
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._drain = asyncio.create_task(self._draining.drain(DRAIN_SECONDS))
        self._drain.add_done_callback(self._drained)

    def _drained(self, _drain: asyncio.Task[None]) -> None:
        self.should_exit = True


def listening(listen: str) -> socket.socket:
    """Return a socket that listens there, before anything else was started.

    Raises:
        GatewayError: the address is taken, or none of this host's.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, answers come 40 ms late.
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, int(port)))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        raise GatewayError(f"listen: {listen} cannot be listened on: {error}") from error
    return found


def log_to_stderr() -> None:
    """Send every library's log to standard error, in one format; standard output is the audit log's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(LogRateLimit())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)
    fastmcp = logging.getLogger("fastmcp")
    fastmcp.handlers.clear()
    fastmcp.propagate = True
    fastmcp.setLevel(logging.WARNING)
    for chatty in ("mcp", "httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The SDK's session logs as `client`.
    for telling in ("mcp.client.stdio", "client"):
        logging.getLogger(telling).addFilter(NoContent())
