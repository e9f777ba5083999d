"""Hosts of client-id documents (claude.ai, chatgpt.com, …) on loopback, for a gateway in a process of its own.

As a program it is the product's command, `opencode-gateway`, which finds these hosts here: what is put in place of
the real thing is the name's look-up, the question whether loopback is public, and the port, as in `fake_documents`.

    CLIENT_HOSTS_PORT=… SSL_CERT_FILE=… python fake_client_hosts.py --config FILE serve
"""

from __future__ import annotations

import json
import os
import ssl
import threading
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from support.gateway.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PORT_VARIABLE = "CLIENT_HOSTS_PORT"
_READ_SECONDS = 30.0
_HERE = "127.0.0.1"


class ClientHosts:
    """Serves `documents`, each at its whole URL; a context manager. They may be changed while it serves."""

    def __init__(self, directory: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.documents = documents
        self.asked: list[str] = []
        """URLs, in the order in which they were asked for."""
        self._certificate, key = make_certificate(directory, *sorted({urlsplit(url).netloc for url in documents}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, key)
        hosts = self

        class Handler(StreamRequestHandler):
            timeout = _READ_SECONDS

            def setup(self) -> None:
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def handle(self) -> None:
                with suppress(OSError):
                    self.wfile.write(hosts._answer(self.rfile.readline(), iter(self.rfile.readline, b"\r\n")))

            def finish(self) -> None:
                super().finish()
                self.request.close()  # the server closes what it accepted, which this took over

        class Server(ThreadingTCPServer):
            daemon_threads = True

        self._server = Server((_HERE, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """Return what the program needs to find these hosts, and to trust them."""
        return {PORT_VARIABLE: str(self._server.server_address[1]), "SSL_CERT_FILE": str(self._certificate)}

    def _answer(self, first: bytes, head: Any) -> bytes:
        path = first.decode("ascii").split()[1]
        headers = dict(line.decode("latin-1").rstrip().lower().split(": ", 1) for line in head)
        url = f"https://{headers['host']}{path}"
        self.asked.append(url)
        document = self.documents.get(url)
        body = json.dumps(document).encode()
        status = "404 Not Found" if document is None else "200 OK"
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        return f"HTTP/1.1 {status}\r\n{length}\r\n\r\n".encode() + body


def _find_hosts_here(port: int) -> None:
    from fastmcp.server.auth import ssrf  # noqa: PLC0415 # heavy, and only the gateway's process needs it

    really_allowed, really_validate = ssrf.is_ip_allowed, ssrf.validate_url

    async def resolve(hostname: str, port: int = 443) -> list[str]:
        del hostname, port
        return [_HERE]

    def is_allowed(ip_str: str) -> bool:
        return ip_str == _HERE or really_allowed(ip_str)

    async def validate(url: str, require_path: bool = False) -> ssrf.ValidatedURL:
        validated = await really_validate(url, require_path)
        validated.port = port
        return validated

    ssrf.resolve_hostname = resolve
    ssrf.validate_url = validate
    ssrf.is_ip_allowed = is_allowed


if __name__ == "__main__":
    from opencode_gateway.cli import main

    _find_hosts_here(int(os.environ[PORT_VARIABLE]))
    main()
