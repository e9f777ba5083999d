"""One request: is it on the list, may it be done, is its directory opened, and what is kept of the answer."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import aiohttp
from aiohttp import web

from opencode_connected.guard import opening
from opencode_connected.guard.apis import api_of
from opencode_connected.guard.bodies import read_object
from opencode_connected.guard.calls import GuardedCalls, parse, read
from opencode_connected.guard.commands import acts_unasked
from opencode_connected.guard.policy import Right
from opencode_connected.guard.reach import GuardedReach
from opencode_connected.guard.refusals import AgentUnavailable, RequestRefused
from opencode_connected.guard.routes import Api, Route, Scope, member
from opencode_connected.guard.stream import EventFilter, OpenStreams
from opencode_connected.guard.thinning import compact, kept
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from opencode_connected.guard.opening import OpensDirectories
    from opencode_connected.guard.policy import OpenedDirectory, Policy
    from opencode_connected.guard.refusals import RefusalLog
    from opencode_connected.guard.thinning import Shape
    from opencode_connected.guard.upstream import Upstream

DOCUMENT = "/opencode-relay/guard"
HEALTH = "/global/health"
MAX_STREAMS = 24
"""Open at once: a server holds one for each agent."""
MAX_DIRECTORIES = 1_000
"""In the guard's document."""
_DIRECTORY_HEADER = "x-opencode-directory"
_BODY_SECONDS = 60.0
"""For a body to arrive, through however slow a line."""
_WRITE_SECONDS = 60.0
"""For a reader to take the next piece of an answer."""
_HEALTH_SECONDS = 5.0
_SMALL = 256 << 10
"""Bytes: an answer of this size is sent in one piece."""
_MAX_THINNED = 2
"""Pages at once: what JSON of 8 MB is parsed into takes 50 MB and more."""
_TOKEN = re.compile(r"[!-~]{1,1000}", re.ASCII)


@dataclass(frozen=True)
class _Asked:
    """A request whose query and body were read and checked; `key` is the query's for a directory."""

    api: Api
    route: Route
    ids: Mapping[str, str]
    key: str
    query: dict[str, str]
    body: dict[str, object] | None


class Gate:
    """Answers requests that may come in at all. Close it with `close`."""

    def __init__(
        self,
        upstream: Upstream,
        policy: Callable[[], Policy],
        log: RefusalLog,
        opener: OpensDirectories | None = None,
    ) -> None:
        self._opener = opener
        self._calls = GuardedCalls(upstream)
        self._reach = GuardedReach(self._calls, policy)
        self._streams = OpenStreams(log)
        self._thinning = asyncio.Semaphore(_MAX_THINNED)
        self._told = policy()

    def end_streams(self) -> None:
        """End all event streams, which have no end of their own."""
        self._streams.end()

    async def close(self) -> None:
        """Close all connections to the agent."""
        await self._calls.close()

    def tell_changes(self) -> None:
        """Say in all event streams that the guard's document is another one, if it is since the last time."""
        if (policy := self._reach.policy()) != self._told:
            self._told = policy
            self._streams.say({"type": "guard.changed"})

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request.

        Raises:
            Refused: it is not let through, or the agent does not answer.

        """
        path, _, query = request.raw_path.partition("?")
        if request.method == "GET" and path == DOCUMENT:
            return await self._document()
        if request.method == "GET" and path == HEALTH:
            return await self._health()
        if (own := opening.find(request.method, path)) is not None:
            return await self._open_or_close(request, own, query)
        api = api_of((await self._calls.target()).generation)
        found = api.find(request.method, path)
        if found is None:
            what = printable(f"{request.method} {path}", limit=120)
            raise RequestRefused(
                "route",
                f"the guard on that laptop does not let `{what}` through: if a tool of yours needs it, "
                "update opencode-relay on that laptop",
            )
        route, ids = found
        return await self._pass_on(request, api, route, ids, query)

    async def _document(self) -> web.Response:
        target = await self._calls.target()
        policy = self._reach.policy()
        directories = [_described(entry) for entry in policy.directories[:MAX_DIRECTORIES]]
        return web.json_response(
            {
                "guard": 1,
                "generation": target.generation,
                "version": target.version,
                "rights": sorted(policy.rights),
                "directories": directories,
                "verbs": sorted({*api_of(target.generation).verbs, *opening.verbs(target.generation)}),
            }
        )

    async def _open_or_close(self, request: web.BaseRequest, route: Route, raw_query: str) -> web.Response:
        _checked_query(raw_query, route, None)
        body = await _checked_body(request, route)
        self._require(Right.DRIVE)
        done = await opening.done(route, body or {}, self._opener)
        self.tell_changes()
        return web.json_response(done)

    async def _health(self) -> web.Response:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                api = api_of((await self._calls.target()).generation)
                status, answer = await self._calls.fetch(api.health)
        except (AgentUnavailable, TimeoutError):
            status, answer = 503, None
        version = member(answer, "version")
        if status != 200 or not isinstance(version, str):
            return web.json_response({"healthy": False}, status=503)
        return web.json_response({"healthy": True, "version": version})

    async def _pass_on(
        self, request: web.BaseRequest, api: Api, route: Route, ids: Mapping[str, str], raw_query: str
    ) -> web.StreamResponse:
        asked = await _read_request(request, api, route, ids, raw_query)
        self._require(route.needs(asked.body or {}))
        if missing := await self._place(asked):
            return missing
        if route.command is not None:
            await self._check_command(asked, *route.command)
        path = route.path.format(**ids)
        if route.is_stream:
            return await self._stream(request, api, path, asked.query)
        async with self._calls.call(request.method, path, asked.query, asked.body) as response:
            return await self._answer(request, route, response)

    def _require(self, right: Right) -> None:
        if right not in self._reach.policy().rights:
            raise RequestRefused(
                f"right {right}",
                f"the owner of that laptop does not let `{right}` through: "
                "add it to `remote` in config.toml there, if you are the owner",
                right=right,
            )

    async def _check_command(self, asked: _Asked, name_key: str, arguments_key: str) -> None:
        """Require a right of its own for a command that may act before anybody is asked."""
        if Right.COMMANDS_WITH_SHELL in self._reach.policy().rights:
            return
        told: object = None
        if (directory := await self._reach.directory(asked.ids["session"])) is not None:
            self._check_directory(asked.api, directory)
            _, told = await self._calls.fetch(asked.api.commands, {asked.api.directory_key: directory})
        if acts_unasked(member(asked.body, name_key), member(asked.body, arguments_key), told):
            self._require(Right.COMMANDS_WITH_SHELL)

    async def _place(self, asked: _Asked) -> web.Response | None:
        """Check the directory that a request is about, and write it where the agent looks for it.

        Returns:
            The answer, if the session that it is about does not exist.

        """
        scope, key, query = asked.route.scope, asked.key, asked.query
        if scope is Scope.BODY:
            self._reach.require(member(asked.body, "location", "directory"))
        elif scope in (Scope.SESSION, Scope.BODY_SESSION):
            session = asked.ids["session"] if scope is Scope.SESSION else str(member(asked.body, "sessionID"))
            directory = await self._reach.directory(session)
            if directory is None:
                missing = {"name": "NotFoundError", "data": {"message": "there is no such session"}}
                return web.json_response(missing, status=404)
            self._reach.require(directory)
        elif scope is Scope.QUERY:
            if key not in query:
                query[key] = await self._own_directory(asked.api, key)
            self._check_directory(asked.api, query[key])
        elif scope is Scope.FILTER and key in query:
            self._check_directory(asked.api, query[key])
        return None

    def _check_directory(self, api: Api, directory: str) -> None:
        if api.decodes_twice and unquote(directory) != directory:
            raise RequestRefused(
                "directory", "OpenCode 1 reads a `%` in that directory's name wrongly: rename the directory"
            )
        self._reach.require(directory)

    async def _own_directory(self, api: Api, key: str) -> str:
        if api.own_directory is None:
            raise RequestRefused("query", f"the query names no directory: say `{key}`")
        _, answer = await self._calls.fetch(api.own_directory)
        directory = member(answer, "directory")
        if not isinstance(directory, str):
            raise AgentUnavailable("OpenCode does not say which directory it works in: try again")
        return directory

    async def _stream(
        self, request: web.BaseRequest, api: Api, path: str, query: Mapping[str, str]
    ) -> web.StreamResponse:
        if len(self._streams) >= MAX_STREAMS:
            raise AgentUnavailable(f"{MAX_STREAMS} event streams are open already: close one", status=503)
        async with self._calls.stream(path, query) as upstream:
            if upstream.status != 200 or upstream.content_type != "text/event-stream":
                raise AgentUnavailable("OpenCode does not tell its events: is it a known version?")
            only = EventFilter(self._reach if api.filters_events else None, api.thinner())
            return await self._streams.pass_on(request, upstream, only)

    async def _answer(
        self, request: web.BaseRequest, route: Route, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        if upstream.status == 204 or upstream.content_length == 0:
            return web.Response(status=upstream.status)
        if upstream.content_type != "application/json":
            if upstream.status >= 400:
                return web.Response(status=upstream.status)
            # Both generations answer what they do not know with their web page.
            raise AgentUnavailable("OpenCode does not know that: is it a known version?")
        if route.answer is not None and upstream.status == 200:
            answer = parse(upstream, await read(upstream, is_emptied=route.is_emptied))
            return web.json_response(await route.answer(answer, self._reach))
        headers = _headers(route, upstream)
        if route.shape is not None and upstream.status == 200:
            return await self._page(request, route, upstream, headers)
        if upstream.content_length is not None and upstream.content_length <= _SMALL:
            return web.Response(body=await read(upstream), status=upstream.status, headers=headers)
        return await _piece_by_piece(request, upstream, headers, upstream.content.iter_any())

    async def _page(
        self, request: web.BaseRequest, route: Route, upstream: aiohttp.ClientResponse, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        async with self._thinning:
            body = await _thinned(route.shape, upstream)
        if len(body) <= _SMALL:
            return web.Response(body=body, headers=headers)
        return await _piece_by_piece(request, upstream, headers, _pieces(body), length=len(body))


def _headers(route: Route, upstream: aiohttp.ClientResponse) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    told = upstream.headers.get(route.header, "") if route.header is not None else ""
    return headers | ({route.header: told} if route.header is not None and _TOKEN.fullmatch(told) else {})


async def _thinned(shape: Shape, upstream: aiohttp.ClientResponse) -> bytes:
    """Return a page as it goes on: nothing else of it is kept while a slow reader takes that.

    Raises:
        TooLong: it is too long to be looked at, and whole it would take a slow line for minutes.

    """
    content = await read(upstream)
    if len(content) <= _SMALL:
        return _thin(content, shape)
    return await asyncio.to_thread(_thin, content, shape)


def _thin(content: bytes, shape: Shape) -> bytes:
    """Return what `shape` keeps of a page; what is no JSON stays as it is."""
    try:
        return compact(kept(json.loads(content), shape))
    except (ValueError, RecursionError):
        return content


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _SMALL):
        yield content[start : start + _SMALL]


async def _piece_by_piece(
    request: web.BaseRequest,
    upstream: aiohttp.ClientResponse,
    headers: Mapping[str, str],
    pieces: AsyncIterator[bytes],
    *,
    length: int | None = None,
) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, headers=headers)
    response.content_length = upstream.content_length if length is None else length
    await response.prepare(request)
    try:
        async for piece in pieces:
            async with asyncio.timeout(_WRITE_SECONDS):
                await response.write(piece)
    except (aiohttp.ClientError, OSError, TimeoutError):
        # Half an answer went out: all that can be said now is that it has no end.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _read_request(
    request: web.BaseRequest, api: Api, route: Route, ids: Mapping[str, str], raw_query: str
) -> _Asked:
    key = route.directory_key or api.directory_key
    known_key = key if route.scope in (Scope.QUERY, Scope.FILTER) else None
    query = _checked_query(raw_query, route, known_key)
    _take_header(request, query, known_key)
    return _Asked(api, route, ids, key, query, await _checked_body(request, route))


def _described(entry: OpenedDirectory) -> dict[str, object]:
    name = {} if entry.name is None else {"name": entry.name}
    return {"path": entry.path, **name, "opened": entry.opened, **({"afar": True} if entry.is_fixed else {})}


def _checked_query(raw: str, route: Route, directory_key: str | None) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=16)
    except ValueError:
        if raw:
            raise RequestRefused("query", "the query cannot be read: encode it as UTF-8") from None
        pairs = []
    query: dict[str, str] = {}
    for key, value in pairs:
        if key in query or not (key in route.query or key == directory_key):
            raise RequestRefused("query", f"the query has `{printable(key, limit=40)}`, not let through, or twice")
        if key in route.query and (problem := route.query[key](value)):
            raise RequestRefused("query", f"`{key}` in the query {problem}")
        query[key] = value
    return query


def _take_header(request: web.BaseRequest, query: dict[str, str], directory_key: str | None) -> None:
    """Let the header that names a directory say the same as the query, which is all that goes on."""
    values = request.headers.getall(_DIRECTORY_HEADER, [])
    if not values:
        return
    if directory_key is None or len(values) > 1 or query.get(directory_key, unquote(values[0])) != unquote(values[0]):
        raise RequestRefused("directory", f"`{_DIRECTORY_HEADER}` says another directory: leave it out")
    query[directory_key] = unquote(values[0])


async def _checked_body(request: web.BaseRequest, route: Route) -> dict[str, object] | None:
    content = await _read_body(request, route.max_body)
    if route.body is None:
        if content:
            raise RequestRefused("body", f"`{request.method}` of that takes no body: send none")
        return None
    if content and request.content_type != "application/json":
        raise RequestRefused("body", "the body is not said to be JSON: send `content-type: application/json`")
    body = read_object(content)
    if problem := route.body(body):
        raise RequestRefused("body", f"the body {problem}")
    return body


async def _read_body(request: web.BaseRequest, limit: int) -> bytes:
    too_long = RequestRefused("body", f"the body is longer than {limit >> 20} MiB: send less")
    if request.content_length is not None and request.content_length > limit:
        raise too_long
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.content.iter_any():
                content += chunk
                if len(content) > limit:
                    raise too_long
    except TimeoutError:
        raise RequestRefused("body", "the body did not arrive in a minute: try again") from None
    return bytes(content)
