"""The MCP server that chat clients see: a proxy over the children of `servers.json`.

Each server is one child process, which all sessions share, whatever protocol era they speak; the gateway speaks the
newest era to it that it knows. So only what belongs to one call passes: its arguments, progress, cancellation and
result. Resources and prompts pass of the OpenCode server alone, see `resources`. What a child says or asks outside a
call (log lines, sampling, elicitation) reaches nobody, since it could reach the wrong person; what it asks instead of
a result (2026 era) neither, since a person would take the question for the gateway's. Its standard error goes to the
service's log.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import anyio
from fastmcp.client.client import Client
from fastmcp.client.transports import ClientTransport, StdioTransport
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.providers.proxy import ProxyClient, ProxyProvider
from mcp_types import Implementation

from opencode_gateway.calls.errors import NotStartedError
from opencode_gateway.calls.hanging import Pulse
from opencode_gateway.calls.names import Names
from opencode_gateway.calls.servers import OPENCODE
from opencode_gateway.capabilities import DEFAULT_TOOLS
from opencode_gateway.logs import ChildLog, whose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fastmcp.client.logging import LogMessage
    from fastmcp.prompts.base import Prompt
    from fastmcp.resources.base import Resource
    from fastmcp.resources.template import ResourceTemplate
    from fastmcp.tools.base import Tool
    from fastmcp.utilities.versions import VersionSpec
    from mcp import ClientSession
    from mcp_types import DiscoverResult, InitializeResult

    from opencode_gateway.calls.names import Compared
    from opencode_gateway.calls.servers import Server, Servers
    from opencode_gateway.capabilities import Capability
    from opencode_gateway.configuration import Configuration

START_SECONDS: Final = 60.0
"""How long a child may take from its start until it is spoken to: on small machines, at boot, it needs many."""

_log = logging.getLogger(__name__)


class _Borrowed(ClientTransport):
    """A session that somebody else opened and will close."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    @asynccontextmanager
    async def connect_session(self, **_options: Any) -> AsyncIterator[ClientSession]:
        yield self._session


class _ChildTransport(StdioTransport):
    """A child process that lives on between calls; one that died is started anew by the next call."""

    def __init__(self, name: str, server: Server, env: dict[str, str], release: str) -> None:
        super().__init__(server.command, list(server.args), env=env, cwd=server.cwd)
        self._name = name
        self._log = ChildLog(name)
        self.instructions: str | None = None
        self.hangs = 0
        self._release = release
        self._introduction: asyncio.Task[None] | None = None
        self._introduced: ClientSession | None = None
        self._ending = asyncio.Lock()
        """Held while a child is being ended: until it is gone there is no other."""

    @asynccontextmanager
    async def connect_session(self, **options: Any) -> AsyncIterator[ClientSession]:
        async with self._ending:
            self.log_file = self._log.opened()
        # The task that reads from the child takes it over.
        whose.set(self._log)
        async with AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(super().connect_session(**options))
                if self._introduction is None or self._introduced is not session:
                    self._introduced = session
                    self._introduction = asyncio.create_task(self._introduce(session))
                    self._introduction.add_done_callback(_looked_at)
                # In a task of its own: a call that is cancelled meanwhile must not leave the others half a handshake.
                await asyncio.shield(self._introduction)
            except Exception as error:
                raise NotStartedError(str(error)) from error
            yield session

    async def close(self) -> None:
        """Keep the child: fastmcp closes the transport of a call that is cancelled early, and others use it too."""

    async def end(self) -> None:
        """End the child for good."""
        await self.disconnect()  # type: ignore[no-untyped-call] # fastmcp's
        self._log.close()

    async def end_if_silent(self, pulse: Pulse, seconds: float) -> bool:
        """End a child that runs and does not answer for so long; tell whether it was so."""
        session, introduction = self._introduced, self._introduction
        # How long it may take to start is another matter.
        if session is None or introduction is None or not introduction.done():
            return False
        if await pulse.beats(session, seconds):
            return False
        if self._introduced is session:
            _log.error("the server %s has not answered for %g s: it is ended", self._name, seconds)
            self.hangs += 1
        await self._give_up(session)
        return True

    async def _introduce(self, session: ClientSession) -> None:
        """Agree on a protocol version."""
        try:
            with anyio.fail_after(START_SECONDS):
                async with Client(_Borrowed(session), mode="auto", init_timeout=START_SECONDS) as client:
                    self.instructions = client.instructions
        except TimeoutError:
            await self._give_up(session)
            raise RuntimeError(f"it did not speak MCP within {START_SECONDS:g} s") from None
        except BaseException:
            await self._give_up(session)
            raise

    async def _give_up(self, session: ClientSession) -> None:
        """End a child that may hang, first by closing its input, at last by SIGKILL; the next call gets another."""
        async with self._ending:
            if self._introduced is session:
                self._introduced = None
                await self.disconnect()  # type: ignore[no-untyped-call] # fastmcp's


def _looked_at(introduction: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for any more: whoever asked has given up, and the next one is told."""
    if not introduction.cancelled():
        introduction.exception()


async def _unheard(_message: LogMessage) -> None:
    """Drop a child's log messages: to whom they belong is not said."""


class ServerChild:
    """One server of `servers.json`."""

    def __init__(self, name: str, server: Server, env: dict[str, str], release: str) -> None:
        self.name = name
        self.server = server
        self.tools: frozenset[str] | None = None
        """The names that it gave its tools when it was last asked; None before."""
        self.pulse = Pulse()
        self._transport = _ChildTransport(name, server, env, release)
        self._client = ProxyClient(
            self._transport,
            mode="auto",
            client_info=Implementation(name="opencode-gateway", version=release),
            forward_incoming_headers=False,
            roots=None,
            sampling_handler=None,
            elicitation_handler=None,
            log_handler=_unheard,
            message_handler=None,
        )

    @property
    def instructions(self) -> str | None:
        """What the server tells models about itself; None before it was first started."""
        return self._transport.instructions

    @property
    def hangs(self) -> int:
        """How often it was ended because it hung."""
        return self._transport.hangs

    def client(self) -> ProxyClient[Any]:
        """Return a client for one call."""
        self.pulse.used()
        return self._client.new()

    async def ask(self) -> None:
        """Have the child, started if need be, list its tools. What goes wrong is raised as it comes."""
        async with self._client.new() as client:
            self.tools = frozenset(tool.name for tool in await client.list_tools())

    async def watch(self) -> None:
        """Replace the child whenever it hangs, for ever. Whoever waits for it is told when it is ended."""
        while True:
            await self.pulse.next()
            if await self._transport.end_if_silent(self.pulse, self.server.silent_seconds):
                await self.start()

    async def start(self) -> None:
        """See that it runs; what goes wrong is logged, and the next call tries again."""
        try:
            await self.ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are served
            _log.error("the server %s does not start: %s", self.name, error)

    async def end(self) -> None:
        """End the process."""
        await self._transport.end()


class Children:
    """All servers, and under which names their tools appear, see `names`."""

    def __init__(self, servers: Servers, environ: Mapping[str, str], tool_timeout: float, release: str) -> None:
        self.all = [
            ServerChild(name, server, server.environment(name, environ, tool_timeout), release)
            for name, server in servers.items()
        ]
        self._by_name = {child.name: child for child in self.all}
        self._names = Names(servers)

    def opencode(self) -> ServerChild | None:
        """Return the OpenCode server, whose tools keep their names; None if there is none of that name."""
        return self._by_name.get(OPENCODE)

    def has_pages(self, tool: str) -> bool:
        """Tell whether what the server of `tool` asks can be decided on pages: those are that server's alone."""
        return self._names.server_of(tool) == OPENCODE and self.is_told_callers(tool)

    def decides(self, tool: str) -> bool:
        """Tell whether `tool` decides what an agent of OpenCode asks."""
        child = self._by_name.get(self.server_of(tool))
        is_ours = child is not None and child.server.is_ours(child.name)
        return is_ours and tool.rpartition("_")[2] in DEFAULT_TOOLS["approve"]

    def serves_of_opencode(self, tool: str) -> bool:
        """Tell whether that server's tool is served."""
        return OPENCODE in self._by_name and self._names.serves(OPENCODE, tool)

    def server_of(self, tool: str) -> str:
        """Return the name of the server that has `tool`, or would have it."""
        return self._names.server_of(tool)

    def is_told_callers(self, tool: str) -> bool:
        """Tell whether the server of `tool` is told who calls."""
        child = self._by_name.get(self.server_of(tool))
        return child is not None and child.server.is_told_callers(child.name)

    def heard(self, tool: str) -> None:
        """Take note that the server of `tool` has answered."""
        if child := self._by_name.get(self.server_of(tool)):
            child.pulse.heard()

    def hangs(self, tool: str) -> int:
        """Return how often that server was ended because it hung."""
        child = self._by_name.get(self.server_of(tool))
        return child.hangs if child else 0

    def beside(self, tool: str, other: str) -> str | None:
        """Return under which name the server of `tool` serves its own tool `other`; None if it does not."""
        child = self._by_name.get(self.server_of(tool))
        return self._names.served(child.name, child.tools or ()).get(other) if child else None

    def compared(self, tools: Mapping[Capability, Sequence[str]]) -> Compared:
        """Compare the map with the tools that the children told when they were last asked."""
        return self._names.compared(tools, {child.name: child.tools for child in self.all if child.tools is not None})

    def providers(self) -> list[tuple[ProxyProvider, str]]:
        """Return a provider of each child's tools, and its prefix."""
        return [(_Tools(child, self._names), self._names.prefix(child.name)) for child in self.all]

    def instructions(self) -> str | None:
        """Return what all servers tell models."""
        told = [(self._names.prefix(child.name), child.instructions) for child in self.all if child.instructions]
        return "\n\n".join(f"Tools {name}_…: {text}" if name else text for name, text in told if text) or None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all children and watch them; end them on leaving. The next call tries one that does not start."""
        await asyncio.gather(*(child.start() for child in self.all))
        watching = [asyncio.create_task(child.watch()) for child in self.all]
        try:
            yield
        finally:
            for watch in watching:
                watch.cancel()
            await asyncio.wait(watching)
            await asyncio.gather(*(child.end() for child in self.all), return_exceptions=True)


async def compared_with_servers(
    configuration: Configuration, servers: Servers, environ: Mapping[str, str]
) -> Compared:
    """Start copies of all servers, compare their tools with the configuration's map, and end them again.

    A server that does not start is logged, and nothing is said of its tools.
    """
    children = Children(servers, environ, configuration.tool_timeout_seconds, version("opencode-relay"))
    async with children.running():
        return children.compared(configuration.capabilities)


class _Tools(ProxyProvider):
    """The tools of a child that its entry lists, and nothing else of it."""

    def __init__(self, child: ServerChild, names: Names) -> None:
        super().__init__(child.client)
        self._server = child.name
        self._names = names

    async def _list_tools(self) -> Sequence[Tool]:
        return [tool for tool in await super()._list_tools() if self._names.serves(self._server, tool.name)]

    async def _get_tool(self, name: str, version: VersionSpec | None = None) -> Tool | None:
        return await super()._get_tool(name, version) if self._names.serves(self._server, name) else None

    async def _get_tool_by_hash(self, tool_hash: str, tool_name: str) -> Tool | None:
        return None

    async def _list_resources(self) -> Sequence[Resource]:
        return ()

    async def _list_resource_templates(self) -> Sequence[ResourceTemplate]:
        return ()

    async def _list_prompts(self) -> Sequence[Prompt]:
        return ()


class Instructions(Middleware):
    """Passes on what the children tell models, as they said it when they were last started."""

    def __init__(self, children: Children) -> None:
        self._children = children

    async def on_initialize(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """Complete the answer of the initialize era."""
        return self._completed(await call_next(context))

    async def on_discover(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """Complete the answer of the era without a handshake."""
        return self._completed(await call_next(context))

    def _completed(self, result: InitializeResult | DiscoverResult | Any) -> Any:
        if not hasattr(result, "model_copy"):
            return result
        return result.model_copy(update={"instructions": self._children.instructions()})
