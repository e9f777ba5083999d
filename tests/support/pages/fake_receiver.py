"""What a notice is sent to: an http or https server on loopback with a name, which behaves well or badly as told."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_notify.network import Network
from support.gateway.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

NAME = "receiver.example.org"


@dataclass(frozen=True)
class Received:
    """A request; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """`behaviour` is one of `well`, `hangs`, `garbage`, `huge` or an HTTP status, sent with `headers`."""

    trusted: ssl.SSLContext
    behaviour: str | int = "well"
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Received] = field(default_factory=list)
    has_got: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each request; whoever waits for it clears it."""
    names: dict[str, list[str]] = field(default_factory=lambda: {NAME: ["127.0.0.1"]})
    asked: list[str] = field(default_factory=list)
    """Names that were looked up."""
    ports: dict[str, int] = field(default_factory=dict)
    written: int = 0
    """Bytes of a huge body that were taken from us."""

    def url(self, scheme: str = "https", name: str = NAME) -> str:
        """Return where it listens."""
        return f"{scheme}://{name}:{self.ports[scheme]}"

    def network(self, allows: Callable[[str], bool] = lambda _: True, seconds: float = 30.0) -> Network:
        """Return an internet that has this server and trusts it."""
        return Network(look_up=self.look_up, allows=allows, tls=self.trusted, seconds=seconds)

    async def look_up(self, name: str) -> list[str]:
        """Return where a name leads."""
        self.asked.append(name)
        if name not in self.names:
            raise OSError(name)
        return self.names[name]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Take a request and answer it."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Received(request.method, request.path, headers, body))
        self.has_got.set()
        match self.behaviour:
            case "hangs":
                await asyncio.Event().wait()
            case "garbage":
                assert request.transport is not None
                request.transport.write(b"\x00\x01 this is no HTTP \xff\r\n\r\n")
                request.transport.close()
            case "huge":
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(200):
                    await response.write(bytes(1_000_000))
                    self.written += 1_000_000
                return response
            case int() as status:
                return web.Response(status=status, headers=self.headers, text="the secret of the server")
        return web.Response(text="{}")


@asynccontextmanager
async def receiver(directory: Path) -> AsyncIterator[Receiver]:
    """Serve one, by http and by https."""
    certificate, key = make_certificate(directory, NAME)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    found = Receiver(ssl.create_default_context(cafile=certificate))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for scheme, tls in (("http", None), ("https", serving)):
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            found.ports[scheme] = runner.addresses[-1][1]
        yield found
    finally:
        await runner.cleanup()
