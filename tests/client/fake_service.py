"""In the place of OpenCode 2's service: something that describes an API, with operations left out."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from opencode_connected.agents import opencode2

if TYPE_CHECKING:
    from types import TracebackType

_OPERATIONS = sorted(opencode2._NEEDED)


class FakeService:
    """A context manager; `without` is the operation that its API does not have."""

    def __init__(self, without: str = "") -> None:
        self.is_odd = False
        paths = {f"/{name}": {"get": {"operationId": name}} for name in _OPERATIONS if name != without}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"paths": [] if fake.is_odd else paths}).encode()
                self.send_response(200 if self.path == "/openapi.json" else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                del arguments

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def record(self) -> opencode2.Record:
        """What its registry file would say."""
        port = self._server.server_address[1]
        return opencode2.Record("2.9.0", f"http://127.0.0.1:{port}", port, os.getpid(), "secret")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
