"""A small internet on loopback: names that lead to one https server, which answers by what a path names."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_fleet.fetching import Fetcher
from support.fleet.pictures import PNG
from support.gateway.certificates import make_certificate
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NAME = "files.example.org"


class Internet:
    """`names` says where each leads, one answer after the other; the last one stays."""

    def __init__(self, port: int, trusted: ssl.SSLContext) -> None:
        self.port = port
        self.url = f"https://{NAME}:{port}"
        self.names: dict[str, list[list[str]]] = {NAME: [["127.0.0.1"]]}
        self.asked: list[web.Request] = []
        self._trusted = trusted

    def fetcher(self, allows: Callable[[str], bool] = lambda _: True, seconds: float = 30.0) -> Fetcher:
        """Return a fetcher for which this is the internet."""
        return Fetcher(self.look_up, allows, self.port, self._trusted, seconds)

    async def look_up(self, name: str) -> list[str]:
        """Return where a name leads this time."""
        if name not in self.names:
            raise OSError(f"{name} is not known")
        answers = self.names[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request by what its path names."""
        self.asked.append(request)
        kind, _, rest = request.match_info["path"].partition("/")
        match kind:
            case "to":
                return web.Response(status=302, headers={"location": request.query["to"]})
            case "round":
                return web.Response(status=302, headers={"location": f"/round/{rest}x"})
            case "status":
                return web.Response(status=int(rest))
            case "told":
                return web.Response(headers={"content-length": "6000000"}, body=b"x" * 6_000_000)
            case "gzip":
                return web.Response(body=gzip.compress(bytes(1_000_000)), headers={"content-encoding": "gzip"})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        if kind == "huge":
            for _ in range(100):
                await response.write(bytes(100_000))
        elif kind == "drip":
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.01)
        else:
            await response.write(PNG)
        await response.write_eof()
        return response


@asynccontextmanager
async def internet(directory: Path) -> AsyncIterator[Internet]:
    """Serve one."""
    certificate, key = make_certificate(directory, NAME)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    found = Internet(free_port(), ssl.create_default_context(cafile=certificate))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", found.port, ssl_context=serving).start()
        yield found
    finally:
        await runner.cleanup()
