"""What the programs of this directory share: a conversation in JSON lines, a browser, and a place to come back to.

{"do":"tools"} is answered by {"answer":["read",…]}, and {"do":"call","tool":"reply","arguments":{…}} by a line
{"progress":[1,3,"…"]} for each progress notification and {"answer":"…"}. What fails is answered by {"error":"…"}.

Only Python's own library is needed here: the programs run in environments that have one client and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLBACK_PATH = "/callback"


def say(**said: Any) -> None:
    """Print one line."""
    print(json.dumps(said), flush=True)


async def show_progress(progress: float, total: float | None, message: str | None) -> None:
    """Print a progress notification."""
    say(progress=[progress, total, message])


async def converse(**answers: Callable[..., Awaitable[Any]]) -> None:
    """Answer what is asked on standard input, one line after another, until it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        try:
            said = await answers[asked.pop("do")](**asked)
        except Exception as error:  # noqa: BLE001 # whatever it is, the test is to see it
            say(error=_reasons(error))
        else:
            say(answer=said)


def _reasons(error: BaseException) -> str:
    inner = getattr(error, "exceptions", None)
    return "; ".join(map(_reasons, inner)) if inner else repr(error)


class Returning:
    """Where a person's browser comes back to: `http://localhost:PORT/callback`."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self.parameters: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.parameters = {name: values[0] for name, values in query.items()}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"You may close this window.")
                outer._came.set()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("localhost", 0), Handler)
        self.url = f"http://localhost:{self._server.server_address[1]}{CALLBACK_PATH}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    async def came(self) -> dict[str, str]:
        """Wait for the browser; return what it brought."""
        await asyncio.to_thread(self._came.wait)
        self._came.clear()
        return self.parameters


async def open_browser(url: str) -> None:
    """Send the person to `url`."""
    subprocess.run([os.environ["BROWSER"], url], check=True)  # noqa: ASYNC221 # it ends at once
