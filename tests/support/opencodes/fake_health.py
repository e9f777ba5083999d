"""A stand-in for OpenCode where only its health matters: one route, answered at once or not at all."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the other side hung up, as tests of broken lines have it do."""


class FakeHealth:
    """Answers `GET /global/health` on a free loopback port with `status`; 0 closes the connection without a word."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.requests += 1
                if fake.status and self.path == "/global/health":
                    body = b'{"healthy":true,"version":"0.0.0"}'
                    self.send_response(fake.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                elif fake.status:
                    fake.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class's name
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer what is not asked for the health: not at all, unless a subclass does."""

    async def healthy(self) -> bool:
        """What the launcher finds when it asks directly."""
        return self.status in (200, 401)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
