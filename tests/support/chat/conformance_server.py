"""An MCP server on standard input and output with the tools that the official conformance suite calls by name."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
    Tool,
)
from pydantic import Field

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
RICH_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""Every kind of keyword that a proxy might lose."""


class _Server(MCPServer[dict[str, Any]]):
    async def list_tools(self) -> list[Tool]:
        """Give one tool a schema that no signature yields."""
        return [
            tool.model_copy(update={"input_schema": RICH_SCHEMA}) if tool.name == "json_schema_2020_12_tool" else tool
            for tool in await super().list_tools()
        ]


server = _Server("conformance-fixture")


def _result(*content: ContentBlock | str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=each) if isinstance(each, str) else each for each in content]
    )


def _resource(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


@server.tool()
def test_simple_text() -> CallToolResult:
    """Answer with text."""
    return _result("This is a simple text response for testing.")


@server.tool()
def test_image_content() -> CallToolResult:
    """Answer with an image."""
    return _result(ImageContent(type="image", data=PIXEL, mime_type="image/png"))


@server.tool()
def test_audio_content() -> CallToolResult:
    """Answer with a sound."""
    return _result(AudioContent(type="audio", data=SILENCE, mime_type="audio/wav"))


@server.tool()
def test_embedded_resource() -> CallToolResult:
    """Answer with an embedded resource."""
    return _result(_resource("test://embedded-resource", "text/plain", "This is an embedded resource content."))


@server.tool()
def test_multiple_content_types() -> CallToolResult:
    """Answer with text, an image and a resource."""
    return _result(
        "Multiple content types test:",
        ImageContent(type="image", data=PIXEL, mime_type="image/png"),
        _resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    )


@server.tool()
async def test_tool_with_progress(ctx: Context[Any, Any]) -> CallToolResult:
    """Report progress three times."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
    return _result("done")


@server.tool()
def test_error_handling() -> CallToolResult:
    """Fail."""
    raise ToolError("This tool intentionally returns an error for testing")


@server.tool()
def test_missing_capability() -> CallToolResult:
    """Need what the client did not declare."""
    needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
    raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", needed)


@server.tool()
def custom_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "", query: str = ""
) -> CallToolResult:
    """Have an argument that clients repeat as a header."""
    return _result(f"{region} {query}")


@server.tool()
def json_schema_2020_12_tool(name: str = "") -> CallToolResult:
    """Have a schema with `$defs`, composition and conditions."""
    return _result(name)


if __name__ == "__main__":
    server.run("stdio")
