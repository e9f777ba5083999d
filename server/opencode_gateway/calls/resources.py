"""Resources and prompts of the OpenCode server, and of no other: FastMCP middleware that asks its child itself.

What is not ours goes on to FastMCP's providers, which have neither. So no other server's can be listed or read,
however it calls them: nothing here looks at what another child has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmcp.prompts.base import Message, PromptResult
from fastmcp.resources.base import ResourceContent, ResourceResult
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.providers.proxy import ProxyPrompt, ProxyResource, ProxyTemplate
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, TextResourceContents

from opencode_gateway.capabilities import PROMPTS, tools_showing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastmcp.prompts.base import Prompt
    from fastmcp.resources.base import Resource
    from fastmcp.resources.template import ResourceTemplate
    from mcp_types import (
        GetPromptRequestParams,
        ListPromptsRequest,
        ListResourcesRequest,
        ListResourceTemplatesRequest,
        ReadResourceRequestParams,
    )

    from opencode_gateway.calls.children import ServerChild


class OpenCodeResources(Middleware):
    """Serves the resources and prompts of one child; without one, there are none. The innermost middleware."""

    def __init__(self, child: ServerChild | None) -> None:
        self._child = child

    async def on_list_resources(
        self,
        context: MiddlewareContext[ListResourcesRequest],
        call_next: CallNext[ListResourcesRequest, Sequence[Resource]],
    ) -> Sequence[Resource]:
        """Return the child's own, as it lists them now."""
        if self._child is None:
            return await call_next(context)
        async with self._child.client() as client:
            found = await client.list_resources()
        ours = [each for each in found if tools_showing(str(each.uri)) is not None]
        return [ProxyResource.from_mcp_resource(self._child.client, each) for each in ours]

    async def on_list_resource_templates(
        self,
        context: MiddlewareContext[ListResourceTemplatesRequest],
        call_next: CallNext[ListResourceTemplatesRequest, Sequence[ResourceTemplate]],
    ) -> Sequence[ResourceTemplate]:
        """Return the child's own."""
        if self._child is None:
            return await call_next(context)
        async with self._child.client() as client:
            found = await client.list_resource_templates()
        ours = [each for each in found if tools_showing(each.uri_template) is not None]
        return [ProxyTemplate.from_mcp_template(self._child.client, each) for each in ours]

    async def on_read_resource(
        self,
        context: MiddlewareContext[ReadResourceRequestParams],
        call_next: CallNext[ReadResourceRequestParams, ResourceResult],
    ) -> ResourceResult:
        """Have the child read one of its own.

        Raises:
            MCPError: it has none of that address, or says why it cannot be read.
        """
        uri = str(context.message.uri)
        if self._child is None or tools_showing(uri) is None:
            return await call_next(context)
        async with self._child.client() as client:
            result = await client.read_resource_mcp(uri)
        contents = [
            ResourceContent(content=each.text, mime_type=each.mime_type)
            for each in result.contents
            if isinstance(each, TextResourceContents)
        ]
        if len(contents) != len(result.contents):
            raise MCPError(INTERNAL_ERROR, f"{uri[:100]!r} is no text, and the gateway passes on no other")
        return ResourceResult(contents=contents)

    async def on_list_prompts(
        self,
        context: MiddlewareContext[ListPromptsRequest],
        call_next: CallNext[ListPromptsRequest, Sequence[Prompt]],
    ) -> Sequence[Prompt]:
        """Return the child's own."""
        if self._child is None:
            return await call_next(context)
        async with self._child.client() as client:
            found = await client.list_prompts()
        return [ProxyPrompt.from_mcp_prompt(self._child.client, each) for each in found if each.name in PROMPTS]

    async def on_get_prompt(
        self,
        context: MiddlewareContext[GetPromptRequestParams],
        call_next: CallNext[GetPromptRequestParams, PromptResult],
    ) -> PromptResult:
        """Have the child say one of its own.

        Raises:
            MCPError: it says what is wrong with the arguments.
        """
        if self._child is None or context.message.name not in PROMPTS:
            return await call_next(context)
        async with self._child.client() as client:
            result = await client.get_prompt_mcp(context.message.name, context.message.arguments)
        messages = [Message(content=each.content, role=each.role) for each in result.messages]
        return PromptResult(messages=messages, description=result.description)
