"""A program: a webhook's receiver. It prints the body of each message that it takes, a line each, and checks none.

python -m support.pages.fake_webhook PORT
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()
        print(body.decode().replace("\n", " "), flush=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Keep standard error for what goes wrong."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), _Handler).serve_forever()
