"""The MCP server that chat clients see: a proxy over the children of `servers.json`.

Each server is one child process, which all sessions share, whatever protocol era they speak; the gateway speaks the
newest era to it that it knows. So only what belongs to one call passes: its arguments, progress, cancellation and
result. A child's prompts and resources are not served. What it says or asks outside a call (log lines, sampling,
elicitation) reaches nobody, since it could reach the wrong person; what it asks instead of a result (2026 era)
neither, since a person would take the question for the gateway's. Its standard error goes to the service's log.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from fastmcp.client.client import Client
from fastmcp.client.transports import ClientTransport, StdioTransport
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.providers.proxy import ProxyClient, ProxyProvider
from fastmcp.tools.base import InputRequiredToolResult
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, Implementation

from opencode_gateway.calls.errors import Asked, CallError, Lost, TimedOut
from opencode_gateway.calls.servers import OPENCODE
from opencode_gateway.logs import ChildLog, whose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fastmcp.client.logging import LogMessage
    from fastmcp.prompts.base import Prompt
    from fastmcp.resources.base import Resource
    from fastmcp.resources.template import ResourceTemplate
    from fastmcp.tools.base import Tool, ToolResult
    from fastmcp.utilities.versions import VersionSpec
    from mcp import ClientSession
    from mcp_types import CallToolRequestParams, DiscoverResult, InitializeResult

    from opencode_gateway.calls.servers import Server, Servers

START_SECONDS: Final = 60.0
"""How long a child may take from its start until it is spoken to: on small machines, at boot, it needs many."""
GRACE_SECONDS: Final = 5.0
"""A call's time beyond `tool_timeout_seconds`: the OpenCode server has then ended it, with a better answer."""

_BROKEN: Final = (OSError, RuntimeError, anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
"""How fastmcp says that it has no connection to a child."""

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
        self._log = ChildLog(name)
        self.instructions: str | None = None
        self._release = release
        self._introduction: asyncio.Task[None] | None = None
        self._introduced: ClientSession | None = None

    @asynccontextmanager
    async def connect_session(self, **options: Any) -> AsyncIterator[ClientSession]:
        self.log_file = self._log.opened()
        # The task that reads from the child takes it over.
        whose.set(self._log)
        async with super().connect_session(**options) as session:
            if self._introduction is None or self._introduced is not session:
                self._introduced = session
                self._introduction = asyncio.create_task(self._introduce(session))
                self._introduction.add_done_callback(_looked_at)
            # In a task of its own: a call that is cancelled meanwhile must not leave the others half a handshake.
            await asyncio.shield(self._introduction)
            yield session

    async def close(self) -> None:
        """Keep the child: fastmcp closes the transport of a call that is cancelled early, and others use it too."""

    async def end(self) -> None:
        """End the child for good."""
        await self.disconnect()  # type: ignore[no-untyped-call] # fastmcp's
        self._log.close()

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
        """End a child that may hang; the next call gets another."""
        if self._introduced is session:
            self._introduced = None
            await self.disconnect()  # type: ignore[no-untyped-call] # fastmcp's


def _looked_at(introduction: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for any more: whoever asked has given up, and the next one is told."""
    if not introduction.cancelled():
        introduction.exception()


async def _unheard(_message: LogMessage) -> None:
    """Drop a child's log messages: to whom they belong is not said."""


class Child:
    """One server of `servers.json`."""

    def __init__(self, name: str, server: Server, env: dict[str, str], release: str) -> None:
        self.name = name
        self.server = server
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

    def client(self) -> ProxyClient[Any]:
        """Return a client for one call."""
        return self._client.new()

    async def ask(self) -> None:
        """Have the child, started if need be, list its tools. What goes wrong is raised as it comes."""
        async with self.client() as client:
            await client.list_tools()

    async def end(self) -> None:
        """End the process."""
        await self._transport.end()


class Children:
    """All servers, and under which names their tools appear.

    One server's tools keep their names. Of several, those of the server called `opencode` do, and the others' are
    `SERVER_TOOL`. A server's name has no `_`, so that no two tools can have one name.
    """

    def __init__(self, servers: Servers, environ: Mapping[str, str], tool_timeout: float, release: str) -> None:
        self.all = [
            Child(name, server, server.environment(environ, tool_timeout), release)
            for name, server in servers.items()
        ]

    def prefix(self, child: Child) -> str:
        """Return what stands before `_` in the names of its tools; nothing if they keep their names."""
        return "" if len(self.all) == 1 or child.name == OPENCODE else child.name

    def server_of(self, tool: str) -> str:
        """Return the name of the server that has `tool`, or would have it."""
        named = {self.prefix(child): child.name for child in self.all}
        return named.get(tool.partition("_")[0]) or named.get("", "")

    def providers(self) -> list[tuple[ProxyProvider, str]]:
        """Return a provider of each child's tools, and its prefix."""
        taken = frozenset(prefix for child in self.all if (prefix := self.prefix(child)))
        return [
            (_Tools(child, frozenset() if self.prefix(child) else taken), self.prefix(child)) for child in self.all
        ]

    def instructions(self) -> str | None:
        """Return what all servers tell models."""
        told = [(self.prefix(child), child.instructions) for child in self.all if child.instructions]
        return "\n\n".join(f"Tools {name}_…: {text}" if name else text for name, text in told if text) or None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all children; end them on leaving. One that does not start is tried again by whoever calls it."""
        outcomes = await asyncio.gather(*(child.ask() for child in self.all), return_exceptions=True)
        for child, outcome in zip(self.all, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _log.error("the server %s does not start: %s", child.name, outcome)
        try:
            yield
        finally:
            await asyncio.gather(*(child.end() for child in self.all), return_exceptions=True)


class _Tools(ProxyProvider):
    """The tools of a child that its entry lists, and nothing else of it."""

    def __init__(self, child: Child, taken: frozenset[str]) -> None:
        """`taken`: first words of names that belong to other servers."""
        super().__init__(child.client)
        self._listed = child.server.tools
        self._taken = taken

    async def _list_tools(self) -> Sequence[Tool]:
        return [tool for tool in await super()._list_tools() if self._serves(tool.name)]

    async def _get_tool(self, name: str, version: VersionSpec | None = None) -> Tool | None:
        return await super()._get_tool(name, version) if self._serves(name) else None

    async def _get_tool_by_hash(self, tool_hash: str, tool_name: str) -> Tool | None:
        return None

    async def _list_resources(self) -> Sequence[Resource]:
        return ()

    async def _list_resource_templates(self) -> Sequence[ResourceTemplate]:
        return ()

    async def _list_prompts(self) -> Sequence[Prompt]:
        return ()

    def _serves(self, name: str) -> bool:
        return name.partition("_")[0] not in self._taken and (self._listed == "*" or name in self._listed)


class Bounds(Middleware):
    """Ends calls that take too long, and says what is known when a child breaks off."""

    def __init__(self, tool_timeout: float) -> None:
        self._seconds = tool_timeout + GRACE_SECONDS

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Wait for the call as long as chat clients do.

        Raises:
            TimedOut: it took too long.
            Lost: the child ended, or could not be started.
            Asked: it wants to know something first.
        """
        name = context.message.name
        try:
            with anyio.fail_after(self._seconds):
                result = await call_next(context)
        except TimeoutError:
            raise TimedOut(
                f"{name} gave no answer within {self._seconds:g} s. What it started goes on: `read` shows how far it "
                "is; do not send it again"
            ) from None
        except CallError:
            raise
        except (ToolError, MCPError, *_BROKEN) as error:
            if not _broke_off(error):
                raise
            _log.warning("%s broke off: %s", name, error)
            raise Lost(
                f"the server behind the gateway broke off before it answered {name}. Whether it was done is not "
                "known: look with `read` before you do it again"
            ) from error
        if isinstance(result, InputRequiredToolResult):
            raise Asked(
                f"the server behind the gateway asked a question instead of answering {name}, and the gateway passes "
                "no questions on. Whether anything was done is not known: look with `read`"
            )
        return result


def _broke_off(error: BaseException) -> bool:
    """Tell whether the child ended or did not start, rather than answered with an error."""
    cause = error.__cause__ if isinstance(error, ToolError) else error
    if isinstance(cause, MCPError):
        return cause.code == CONNECTION_CLOSED
    return isinstance(cause, _BROKEN)


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
