"""Calls of the tools by a person at a terminal: the server and its client are one process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio.to_thread
import click
from mcp.client import Client
from mcp_types import TextContent

from opencode_common.text import one_line
from opencode_mcp.tool import failure
from opencode_mcp.tools import reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.mcpserver import MCPServer
    from mcp_types import CallToolResult, Tool

    from opencode_fleet.fleet import Fleet

_SHOWN_LENGTH: Final = 80


class BadArguments(Exception):
    """What was given is nothing that the tool takes; nothing was called."""


class ToolFailed(Exception):
    """The tool's own error, in its words."""


class Answer(NamedTuple):
    """What a tool returned: for a person, and for programs."""

    text: str
    structured: dict[str, Any]


def described(tool: Tool) -> str:
    """Return a tool and what it takes, for a terminal."""
    required = tool.input_schema.get("required", [])
    lines = [f"{tool.name}: {tool.description or ''}".strip()]
    for name, schema in tool.input_schema.get("properties", {}).items():
        kinds = _kinds(schema)
        what = "|".join(schema["enum"]) if "enum" in schema else " or ".join(sorted(kinds))
        notes = [what, *(["required"] if name in required else []), *filter(None, [schema.get("description")])]
        lines.append(f"  {name}  ({'; '.join(notes)})")
    return "\n".join(lines)


def parsed(tool: Tool, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that `KEY=VALUE` words are, by the tool's schema.

    Raises:
        BadArguments: a word names nothing that the tool takes, or its value is of another kind.
    """
    properties = tool.input_schema.get("properties", {})
    given: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadArguments(f"{one_line(word, _SHOWN_LENGTH)!r} is no KEY=VALUE")
        if key not in properties:
            takes = ", ".join(properties) or "nothing"
            raise BadArguments(f"`{tool.name}` takes no {one_line(key, _SHOWN_LENGTH)}; it takes: {takes}")
        given.setdefault(key, []).append(value)
    if missing := [name for name in tool.input_schema.get("required", []) if name not in given]:
        raise BadArguments(f"`{tool.name}` needs {', '.join(missing)}")
    return {key: _value(key, values, _kinds(properties[key])) for key, values in given.items()}


async def called(server: MCPServer[Fleet], name: str, words: Sequence[str]) -> Answer:
    """Call a tool of a server that does not run yet, and end it. Progress goes to standard error.

    Raises:
        BadArguments: nothing was called.
        ToolFailed: with the tool's own words.
    """
    tools = {tool.name: tool for tool in await server.list_tools()}
    if name not in tools:
        raise BadArguments(f"no tool is named {one_line(name, _SHOWN_LENGTH)!r}; there are: {', '.join(tools)}")
    arguments = parsed(tools[name], words)
    progress = _Progress()
    # Nothing is raised inside: it would come out as a group of one.
    async with Client(server) as client:
        result = await _unconfirmed(client, name, arguments)
        if result is None:
            result = await client.call_tool(name, arguments, progress_callback=progress.tell)
    progress.end()
    if result.is_error:
        raise ToolFailed(_text(result))
    return Answer(_text(result), result.structured_content or {})


class _Progress:
    """Writes to standard error what comes before the answer."""

    def __init__(self) -> None:
        self._is_open = False

    async def tell(self, progress: float, total: float | None, message: str | None) -> None:
        """Write a message as it comes."""
        del progress, total
        if message:
            self._is_open = not message.endswith("\n")
            click.echo(message, nl=False, err=True)

    def end(self) -> None:
        """End its last line."""
        if self._is_open:
            click.echo(err=True)


async def _unconfirmed(client: Client, name: str, arguments: dict[str, Any]) -> CallToolResult | None:
    """Show what `reply` is about to answer, and ask: a server approves nothing that it did not show before.

    Return the error that ends the call; None if it may go on. Nobody is asked where there is no terminal.
    """
    if name != reply.TOOL.name or not sys.stdin.isatty() or not (arguments.get("answer") and arguments.get("ask")):
        return None
    asks = arguments["ask"] if isinstance(arguments["ask"], list) else [arguments["ask"]]
    for ask in asks:
        shown = await client.call_tool(name, {"instance": arguments["instance"], "ask": ask})
        if shown.is_error:
            return shown
        click.echo(_text(shown), err=True)
    question = f"Answer {arguments['answer']!r}?"

    def confirmed() -> bool:
        return click.confirm(question, err=True)

    if await anyio.to_thread.run_sync(confirmed, abandon_on_cancel=True):
        return None
    return failure("nothing was answered")


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def _kinds(schema: dict[str, Any]) -> set[str]:
    """Return the types that a value may have, as JSON Schema names them."""
    return {each["type"] for each in schema.get("anyOf", [schema]) if "type" in each}


def _value(key: str, values: list[str], kinds: set[str]) -> Any:
    read = [_read(value) for value in values]
    if "array" in kinds:
        if len(values) == 1 and isinstance(read[0], list):
            return read[0]
        if len(values) > 1 or "string" not in kinds:
            return [each if isinstance(each, dict) else value for each, value in zip(read, values, strict=True)]
    if len(values) > 1:
        raise BadArguments(f"{key} is given {len(values)} times, and takes one value")
    if "string" in kinds or not kinds:
        return values[0]
    if not isinstance(read[0], _TYPES[min(kinds)]) or (isinstance(read[0], bool) and "boolean" not in kinds):
        raise BadArguments(f"{key} is {one_line(values[0], _SHOWN_LENGTH)!r}; it must be of the kind {min(kinds)}")
    return read[0]


_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
}


def _read(value: str) -> Any:
    """Return what `value` is as JSON; None if it is none."""
    try:
        return json.loads(value)
    except ValueError:
        return None
