"""How a function over the face is offered as a tool, and what tools have in common: results, refusals, arguments."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BeforeValidator, Field, WithJsonSchema

from opencode_common.text import clean
from opencode_fleet.errors import FleetError, Refused
from opencode_journal.errors import CursorError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from opencode_fleet.fleet import Fleet
    from opencode_mcp.caller import Caller
    from opencode_mcp.face import Face

PROGRESS_LENGTH = 4_000
_CONTEXT = "ctx"
"""The parameter for what the SDK knows of a call; a tool need not have it."""

ToolFunction = Callable[..., Awaitable[CallToolResult]]
InstanceName = Annotated[str, Field(description="name, or an unambiguous part of it", max_length=200)]
MAX_INSTANCES = 50
"""Instances that one call is about at most."""
ALL = "all"
"""What stands for every instance that is there, or every ask that was listed."""
_NAME = {"type": "string"}
Instances = Annotated[
    list[InstanceName],
    Field(min_length=1, max_length=MAX_INSTANCES),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [_NAME, {"type": "array", "items": _NAME}],
            "description": f"name, or an unambiguous part of it; several as a list, or {ALL!r}",
        }
    ),
]


class Tool(NamedTuple):
    """A coroutine function whose first parameter is the face, and how it is offered: its name is the tool's."""

    function: ToolFunction
    title: str
    is_read_only: bool = False

    @property
    def name(self) -> str:
        """Its name for clients."""
        return self.function.__name__

    def annotations(self) -> ToolAnnotations:
        """Return the hints that clients get."""
        return ToolAnnotations(
            title=self.title,
            read_only_hint=self.is_read_only,
            destructive_hint=None if self.is_read_only else True,
            open_world_hint=True,
        )

    def over(self, face: Face, caller_of: Callable[[Context[Fleet, Any]], Caller]) -> ToolFunction:
        """Return the function over `face` as its caller has it, with the signature that clients see.

        What a person can mend becomes a tool error in its own words; the SDK would put a prefix before them.
        """
        function = self.function
        signature = inspect.signature(function, eval_str=True)
        parameters = list(signature.parameters.values())[1:]
        takes_context = _CONTEXT in signature.parameters
        if not takes_context:
            parameters.append(inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=Context))

        async def tool(**arguments: Any) -> CallToolResult:
            ctx = arguments[_CONTEXT] if takes_context else arguments.pop(_CONTEXT)
            try:
                return await function(face.of(caller_of(ctx)), **arguments)
            except (FleetError, CursorError) as error:
                return failure(str(error))

        shown = signature.replace(parameters=parameters)
        tool.__signature__ = shown  # type: ignore[attr-defined] # what `inspect.signature` documents for it
        tool.__annotations__ = {each.name: each.annotation for each in shown.parameters.values()}
        tool.__annotations__["return"] = shown.return_annotation
        tool.__name__, tool.__doc__ = function.__name__, function.__doc__
        return tool


def means_all(names: list[str]) -> bool:
    """Tell whether every instance that is there is meant.

    Raises:
        Refused: `all` stands beside names, where it could be a part of one.
    """
    words = [name.strip().casefold() for name in names]
    if ALL in words and len(words) > 1:
        raise Refused(f"{ALL!r} stands alone, not beside names; nothing was done")
    return words == [ALL]


def optional_text(description: str) -> WithJsonSchema:
    """Describe an optional string briefly; models that spell out a null are understood all the same."""
    return WithJsonSchema({"type": "string", "description": description})


def answered(text: str, structured: BaseModel) -> CallToolResult:
    """Return a tool's result: `text` for the model and the person, `structured` for programs."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured.model_dump(mode="json", exclude_defaults=True),
    )


def failure(text: str) -> CallToolResult:
    """Return a tool error."""
    return CallToolResult(content=[TextContent(type="text", text=clean(text))], is_error=True)


def progress(ctx: Context[Fleet, Any]) -> Callable[[str], Awaitable[None]]:
    """Return what tells the caller what an agent writes, as it writes it."""
    told = 0

    async def on_text(text: str) -> None:
        nonlocal told
        told += len(text)
        await ctx.report_progress(told, message=clean(text[-PROGRESS_LENGTH:]))

    return on_text
