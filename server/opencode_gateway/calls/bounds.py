"""How long a request waits for a child, and what a caller is told when no answer comes.

FastMCP middleware. A call that is over for the gateway is not over for the agent: the words say what goes on, what is
not known, and where to look, by the names that the call itself gave.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_http_request
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import InputRequiredToolResult
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR

from opencode_gateway.calls.ending import ending_of
from opencode_gateway.calls.errors import AskedBack, CallError, Lost, NotMade, NotStartedError, TimedOut, Unfinished
from opencode_gateway.logs import escaped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from fastmcp.prompts.base import Prompt, PromptResult
    from fastmcp.resources.base import Resource, ResourceResult
    from fastmcp.resources.template import ResourceTemplate
    from fastmcp.tools.base import Tool, ToolResult
    from mcp_types import (
        CallToolRequestParams,
        GetPromptRequestParams,
        ListPromptsRequest,
        ListResourcesRequest,
        ListResourceTemplatesRequest,
        ListToolsRequest,
        ReadResourceRequestParams,
    )

    from opencode_gateway.calls.children import Children

GRACE_SECONDS: Final = 5.0
"""A call's time beyond `tool_timeout_seconds`: the OpenCode server has then ended it, with a better answer."""
_NAME_CHARACTERS: Final = 100
_READER: Final = "read"
"""The tool that shows how far an agent is, where a server has it."""
_NAMES: Final = ("instance", "session")
"""The arguments that say whose conversation it is."""
_NEW: Final = "new"
"""Names no session yet."""
BROKEN: Final = (OSError, RuntimeError, anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
"""How fastmcp says that it has no connection to a child."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Bounds(Middleware):
    """Ends what takes too long, what runs when the service ends, and what a child breaks off."""

    def __init__(self, tool_timeout: float, children: Children, observing: frozenset[str]) -> None:
        """`tool_timeout`: seconds; `observing`: tools that only observe."""
        self._seconds = tool_timeout + GRACE_SECONDS
        self._children = children
        self._observing = observing

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Wait for the call as long as chat clients do.

        Raises:
            TimedOut: it took too long.
            Unfinished: the service ends.
            NotMade: the child could not be started.
            Lost: the child ended or hung.
            Asked: it wants to know something first.
        """
        name = context.message.name
        words = _Words(name, self._look(name, context.message.arguments or {}), observes=name in self._observing)
        result = await self._waited(call_next(context), words, name)
        if isinstance(result, InputRequiredToolResult):
            raise AskedBack(words.asked())
        return result

    async def on_read_resource(
        self,
        context: MiddlewareContext[ReadResourceRequestParams],
        call_next: CallNext[ReadResourceRequestParams, ResourceResult],
    ) -> ResourceResult:
        """Wait as for a call. Raises what `on_call_tool` raises."""
        words = _WordsOfRead(f'"{escaped(str(context.message.uri)[:_NAME_CHARACTERS])}"', "", observes=True)
        return await self._waited(call_next(context), words, _READER)

    async def on_get_prompt(
        self,
        context: MiddlewareContext[GetPromptRequestParams],
        call_next: CallNext[GetPromptRequestParams, PromptResult],
    ) -> PromptResult:
        """Wait as for a call. Raises what `on_call_tool` raises."""
        words = _WordsOfRead(f'"{escaped(context.message.name[:_NAME_CHARACTERS])}"', "", observes=True)
        return await self._waited(call_next(context), words, _READER)

    async def _waited(self, answer: Awaitable[_T], words: _Words, tool: str) -> _T:
        """Return an answer of the server of `tool`."""
        hangs = self._children.hangs(tool)
        ending = ending_of(get_http_request().scope)
        result: _T | None = None
        try:
            with anyio.move_on_after(self._seconds) as waiting, ending.cuts(waiting):
                result = await answer
        except CallError:
            raise
        except (ToolError, MCPError, *BROKEN) as error:
            if not _broke_off(error):
                raise
            _log.warning("%s broke off: %s", words.name, error)
            if never_began(error):
                raise NotMade(words.not_made()) from error
            raise Lost(words.hung() if self._children.hangs(tool) > hangs else words.broke_off()) from error
        if result is None:
            raise Unfinished(words.unfinished()) if ending.has_come else TimedOut(words.late(self._seconds))
        self._children.heard(tool)
        return result

    async def on_list_tools(
        self, context: MiddlewareContext[ListToolsRequest], call_next: CallNext[ListToolsRequest, Sequence[Tool]]
    ) -> Sequence[Tool]:
        """Wait for the list of tools as long as for a call. Raises `MCPError`: it did not come."""
        return await self._listed(call_next(context), "tools")

    async def on_list_resources(
        self,
        context: MiddlewareContext[ListResourcesRequest],
        call_next: CallNext[ListResourcesRequest, Sequence[Resource]],
    ) -> Sequence[Resource]:
        """Wait as for the list of tools."""
        return await self._listed(call_next(context), "resources")

    async def on_list_resource_templates(
        self,
        context: MiddlewareContext[ListResourceTemplatesRequest],
        call_next: CallNext[ListResourceTemplatesRequest, Sequence[ResourceTemplate]],
    ) -> Sequence[ResourceTemplate]:
        """Wait as for the list of tools."""
        return await self._listed(call_next(context), "resources")

    async def on_list_prompts(
        self,
        context: MiddlewareContext[ListPromptsRequest],
        call_next: CallNext[ListPromptsRequest, Sequence[Prompt]],
    ) -> Sequence[Prompt]:
        """Wait as for the list of tools."""
        return await self._listed(call_next(context), "prompts")

    async def _listed(self, listing: Awaitable[Sequence[_T]], what: str) -> Sequence[_T]:
        """Return a list of servers' own.

        Raises:
            MCPError: it did not come.
        """
        ending = ending_of(get_http_request().scope)
        try:
            with anyio.move_on_after(self._seconds) as waiting, ending.cuts(waiting):
                return await listing
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise
            raise MCPError(
                CONNECTION_CLOSED, "the server behind the gateway ended or hung, and is started anew: ask again"
            ) from error
        except BROKEN as error:
            _log.warning("the list of %s did not come: %s", what, error)
            raise MCPError(
                INTERNAL_ERROR, "the server behind the gateway does not start; the gateway's log says why"
            ) from error
        if ending.has_come:
            raise MCPError(INTERNAL_ERROR, "the gateway is being restarted: ask again in a few seconds")
        raise MCPError(
            INTERNAL_ERROR, f"the servers behind the gateway did not list their {what} within {self._seconds:g} s"
        )

    def _look(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return with what one sees how far a call is; nothing where its server has no such tool."""
        reader = self._children.beside(name, _READER)
        if reader is None:
            return ""
        named = [
            f'{which} "{escaped(value[:_NAME_CHARACTERS])}"'
            for which in _NAMES
            if isinstance(value := arguments.get(which), str) and value.strip() not in {"", _NEW}
        ]
        return f"`{reader}` with {' and '.join(named)}" if named else f"`{reader}`"


class _Words:
    """What the caller of one tool is told. `look` is with what one sees how far it is, or nothing."""

    only_looks = "It only looks: call it again"

    def __init__(self, name: str, look: str, *, observes: bool) -> None:
        self.name = name
        self._look = look
        self._observes = observes

    def late(self, seconds: float) -> str:
        return f"{self.name} gave no answer within {seconds:g} s. What it started goes on{self._how_far()}"

    def unfinished(self) -> str:
        began = f"the gateway is being restarted and cannot wait for {self.name} any longer."
        if self._observes:
            return f"{began} {self.only_looks} in a few seconds"
        return f"{began} It is still running{self._how_far()}"

    def not_made(self) -> str:
        return (
            f"the server behind the gateway does not start, so nothing was done of {self.name}; "
            "the gateway's log says why"
        )

    def broke_off(self) -> str:
        return f"the server behind the gateway broke off before it answered {self.name}.{self._not_known()}"

    def hung(self) -> str:
        return (
            "the server behind the gateway hung, so it is ended and started anew, "
            f"and {self.name} gets no answer.{self._not_known()}"
        )

    def asked(self) -> str:
        return (
            f"the server behind the gateway asked a question instead of answering {self.name}, and the gateway "
            f"passes no questions on. Whether anything was done is not known{self._before_again()}"
        )

    def _how_far(self) -> str:
        shown = f": {self._look} shows how far it is" if self._look else ""
        return f"{shown}; do not send it again"

    def _not_known(self) -> str:
        if self._observes:
            return f" {self.only_looks}"
        return f" Whether it was done is not known{self._before_again()}"

    def _before_again(self) -> str:
        return f": look with {self._look} before you do it again" if self._look else ": look before you do it again"


class _WordsOfRead(_Words):
    """What whoever reads a resource or a prompt is told: nothing was started by it."""

    only_looks = "Ask for it again"

    def late(self, seconds: float) -> str:
        return f"{self.name} did not come within {seconds:g} s: ask for it again"


def _broke_off(error: BaseException) -> bool:
    """Tell whether the child ended or did not start, rather than answered with an error."""
    cause = error.__cause__ if isinstance(error, ToolError) else error
    if isinstance(cause, MCPError):
        return cause.code == CONNECTION_CLOSED
    return isinstance(cause, BROKEN)


def never_began(error: BaseException) -> bool:
    """Tell whether there was no child to make the call to."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NotStartedError):
        cause = cause.__cause__
    return cause is not None
