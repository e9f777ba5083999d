"""A stand-in for OpenCode that sends much: what fills the way from a laptop to its relay."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from support.opencodes.fake_health import FakeHealth

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

_CHUNK = 64 * 1024
_LINES_PER_SECOND = 50
_SHOWN_CHARACTERS = 30_000
"""Of a tool's output: what OpenCode 1 repeats with every update."""


class FakeTraffic(FakeHealth):
    """Answers, beside the health, for ever or until its reader hangs up.

    `GET /bytes/N` are N bytes that nothing compresses. `GET /messages/N` are about N bytes of messages. `GET /log/S`
    are the events of a command that writes 50 lines a second for S seconds, each with the whole output so far.
    """

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one of them."""
        _, what, amount = handler.path.split("/")
        handler.send_response(200)
        handler.end_headers()
        with suppress(ConnectionError):
            {"bytes": _send_bytes, "messages": _send_messages, "log": _send_log}[what](handler, int(amount))


def _send_bytes(handler: BaseHTTPRequestHandler, amount: int) -> None:
    while amount > 0:
        handler.wfile.write(os.urandom(min(amount, _CHUNK)))
        amount -= _CHUNK


def _send_messages(handler: BaseHTTPRequestHandler, amount: int) -> None:
    number = 0
    while amount > 0:
        number += 1
        part = {"id": f"prt_{os.urandom(13).hex()}", "type": "text", "text": "\n".join(_lines(number * 40, 40))}
        amount -= handler.wfile.write(json.dumps(part).encode() + b"\n")


def _send_log(handler: BaseHTTPRequestHandler, seconds: int) -> None:
    began = time.monotonic()
    output = ""
    for number in range(seconds * _LINES_PER_SECOND):
        output = f"{output}{_lines(number, 1)[0]}\n"[-_SHOWN_CHARACTERS:]
        event = {"type": "message.part.updated", "part": {"id": "prt_1", "state": {"metadata": {"output": output}}}}
        handler.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        handler.wfile.flush()
        time.sleep(max(0.0, began + number / _LINES_PER_SECOND - time.monotonic()))


def _lines(first: int, count: int) -> list[str]:
    """Return lines as a test runner writes them: alike, and never the same."""
    return [
        f"PASS  src/module{number % 97}/feature{number * 7919 % 1013}.test.ts > handles case {number} "
        f"({number * 104_729 % 4999 / 100:.2f} ms) {number * 2_654_435_761 % 2**32:08x}"
        for number in range(first, first + count)
    ]
