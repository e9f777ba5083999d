"""Who may call what: FastMCP middleware over the capabilities of the caller's token.

Only the configuration's map of tools counts, never what a server says of its tools. A resource of the OpenCode
server needs `observe` and shows only what the caller may have a tool show; its prompts need `observe`. What any other
server has besides tools is served to nobody, see `resources`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from opencode_gateway.calls.errors import Denied
from opencode_gateway.capabilities import PROMPTS, Capability, permitted, tools_showing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

_OBSERVE: Final[Capability] = "observe"


class Permissions(Middleware):
    """Shows a caller the tools that it may use, and refuses calls of others; likewise resources and prompts."""

    def __init__(
        self, tools: Mapping[Capability, Sequence[str]], is_served: Callable[[str], bool] = lambda tool: True
    ) -> None:
        """`is_served`: whether a tool of the OpenCode server is served at all."""
        self._tools = tools
        self._is_served = is_served

    async def on_list_tools(
        self, context: MiddlewareContext[ListToolsRequest], call_next: CallNext[ListToolsRequest, Sequence[Tool]]
    ) -> Sequence[Tool]:
        """Leave out what the caller may not use."""
        allowed = self._allowed()
        return [tool for tool in await call_next(context) if tool.name in allowed]

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Refuse a tool that the caller may not use.

        Raises:
            Denied: says what it would need.
        """
        name = context.message.name
        if name not in self._allowed():
            raise Denied(self._reason(name))
        return await call_next(context)

    async def on_list_resources(
        self,
        context: MiddlewareContext[ListResourcesRequest],
        call_next: CallNext[ListResourcesRequest, Sequence[Resource]],
    ) -> Sequence[Resource]:
        """Leave out what the caller may not see."""
        if not self._observes():
            return []
        return [each for each in await call_next(context) if not self._lacking(str(each.uri))]

    async def on_list_resource_templates(
        self,
        context: MiddlewareContext[ListResourceTemplatesRequest],
        call_next: CallNext[ListResourceTemplatesRequest, Sequence[ResourceTemplate]],
    ) -> Sequence[ResourceTemplate]:
        """Leave out what the caller may not see."""
        if not self._observes():
            return []
        return [each for each in await call_next(context) if not self._lacking(each.uri_template)]

    async def on_read_resource(
        self,
        context: MiddlewareContext[ReadResourceRequestParams],
        call_next: CallNext[ReadResourceRequestParams, ResourceResult],
    ) -> ResourceResult:
        """Refuse a resource that the caller may not see.

        Raises:
            Denied: says what it would need.
        """
        uri = str(context.message.uri)
        if tools_showing(uri) is not None:
            self._check_observes(uri)
            if lacking := self._lacking(uri):
                raise Denied(
                    f"{uri[:100]!r} shows what {' and '.join(lacking)} shows, which this login may not use; "
                    "nothing was read"
                )
        return await call_next(context)

    async def on_list_prompts(
        self,
        context: MiddlewareContext[ListPromptsRequest],
        call_next: CallNext[ListPromptsRequest, Sequence[Prompt]],
    ) -> Sequence[Prompt]:
        """Show the prompts to whoever may look."""
        return await call_next(context) if self._observes() else []

    async def on_get_prompt(
        self,
        context: MiddlewareContext[GetPromptRequestParams],
        call_next: CallNext[GetPromptRequestParams, PromptResult],
    ) -> PromptResult:
        """Refuse a prompt to whoever may not look.

        Raises:
            Denied: says what it would need.
        """
        if context.message.name in PROMPTS:
            self._check_observes(context.message.name)
        return await call_next(context)

    def _observes(self) -> bool:
        token = get_access_token()
        return token is not None and _OBSERVE in token.scopes

    def _check_observes(self, what: str) -> None:
        if not self._observes():
            raise Denied(
                f"{what[:100]!r} needs the capability {_OBSERVE}, which this login does not have; nothing was read"
            )

    def _lacking(self, uri: str) -> list[str]:
        """Return the tools that show what a resource shows and that this login may not use."""
        allowed = self._allowed()
        return [tool for tool in tools_showing(uri) or () if tool not in allowed or not self._is_served(tool)]

    def _allowed(self) -> frozenset[str]:
        token = get_access_token()
        return permitted(self._tools, token.scopes if token else ())

    def _reason(self, name: str) -> str:
        needed = [capability for capability, names in self._tools.items() if name in names]
        if not needed:
            return f"{name[:100]!r} is no tool that this gateway serves; nothing was done"
        return (
            f"{name!r} needs the capability {' or '.join(needed)}, which this login does not have; nothing was done"
        )
