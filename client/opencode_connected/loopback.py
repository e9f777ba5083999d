"""A small HTTP client for OpenCode on this machine: one request, a bounded time, a bounded body.

Standard library only, because the guardian loads it without site packages and the launcher while OpenCode boots.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import dataclass, field

HOST = "127.0.0.1"
"""OpenCode binds it literally; `localhost` may mean ::1, where somebody else may listen."""

_MAX_BODY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


class Unanswered(Exception):
    """No usable answer: refused, too slow, too long, or not HTTP."""


@dataclass(frozen=True)
class LoopbackEndpoint:
    """An OpenCode on this machine: its port, and user and password if it asks for them."""

    port: int
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def get(self, path: str, *, timeout: float) -> tuple[int, bytes]:
        """Return status and body of a GET; `timeout` in seconds for the whole of it."""
        return self._request("GET", path, None, timeout)

    def post(self, path: str, body: object = None, *, timeout: float) -> tuple[int, bytes]:
        """Return status and body of a POST of `body` as JSON; `timeout` in seconds for the whole of it."""
        return self._request("POST", path, json.dumps(body or {}).encode(), timeout)

    def _request(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        deadline = time.monotonic() + timeout
        headers = {"content-type": "application/json", "connection": "close"}
        if self.credentials:
            token = base64.b64encode(":".join(self.credentials).encode()).decode()
            headers["authorization"] = f"Basic {token}"
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, _read(response, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(str(error) or type(error).__name__) from error
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise Unanswered(f"the answer is longer than {_MAX_BODY_BYTES} bytes")
        if time.monotonic() > deadline:
            raise Unanswered("the answer takes too long")
    return bytes(body)
