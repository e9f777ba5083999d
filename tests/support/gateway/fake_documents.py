"""A chat service's host for client-id documents on loopback, and a name service that says it were public.

Real are the TLS server, its certificate, and everything that fetches and checks. A public host with a document of
ours there is none, so what is put in place of the real thing is the name's look-up and, for the one address that it
gives, the question whether it is public.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastmcp.server.auth import ssrf

from support.gateway.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest

NAME = "chat.example"


class DocumentHost:
    """Answers each path with what a test put there: bytes of a whole HTTP response, or nothing, ever."""

    def __init__(self) -> None:
        self.port = 0
        self.responses: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.headers: list[str] = []
        self.holding = asyncio.Event()

    @property
    def netloc(self) -> str:
        return f"{NAME}:{self.port}"

    def url(self, path: str) -> str:
        return f"https://{self.netloc}{path}"

    def put(self, path: str, body: bytes | dict[str, Any], *headers: str, status: str = "200 OK") -> str:
        """Serve `body` at `path`; return its URL."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
        self.responses[path] = "\r\n".join(lines).encode() + content
        return self.url(path)

    def put_client(self, path: str, **changed: Any) -> str:
        """Serve the document of a client at `path`; return its id."""
        document = {
            "client_id": self.url(path),
            "client_name": "Chat",
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
            "token_endpoint_auth_method": "none",
        }
        return self.put(path, document | changed)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            self.headers.append(head)
            response = self.responses.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if response is None:
                self.holding.set()
                await reader.read()  # until the other side gives up
            else:
                writer.write(response)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def document_host(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, public: bool = True
) -> AsyncIterator[DocumentHost]:
    """Serve documents as `chat.example`, which is trusted here.

    Args:
        directory: for its certificate.
        monkeypatch: of the test.
        public: whether the address that the name has counts as public.
    """
    certificate, key = make_certificate(directory, NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    host = DocumentHost()
    server = await asyncio.start_server(host.answer, "127.0.0.1", 0, ssl=context)
    host.port = server.sockets[0].getsockname()[1]

    async def resolve(hostname: str, port: int = 443) -> list[str]:
        assert (hostname, port) == (NAME, host.port)
        return ["127.0.0.1"]

    really_allowed: Callable[[str], bool] = ssrf.is_ip_allowed
    monkeypatch.setattr(ssrf, "resolve_hostname", resolve)
    if public:
        monkeypatch.setattr(ssrf, "is_ip_allowed", lambda ip: ip == "127.0.0.1" or really_allowed(ip))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    try:
        yield host
    finally:
        server.close()
        await server.wait_closed()
