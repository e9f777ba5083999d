"""The tool `reply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.fleet import Fleet
from opencode_mcp.caller import DRIVE
from opencode_mcp.face import Face
from opencode_mcp.tool import InstanceName, Tool, answered, progress
from opencode_mcp.views.turns import TurnResult, turned, waiting

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask


async def reply(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: InstanceName,
    answer: Annotated[
        str | list[str],
        Field(description="permission: once, always, reject or 'reject: why'; question: label or text"),
    ] = "",
    ask: Annotated[
        str,
        Field(
            description="id or handle; without `answer` it is shown whole, without it all are listed", max_length=100
        ),
    ] = "",
) -> Annotated[CallToolResult, TurnResult]:
    """List what an agent waits for; with `ask` and the person's own answer, settle it and go on."""
    target = await face.fleet.find_live(instance)
    ask = face.handles.ask_id(target, ask)
    if not ask:
        return _listed(face, target, await face.driver.asks(target))
    if isinstance(answer, str) and not answer.strip():
        found = await face.driver.open_ask(target, ask)
        return answered(face.shown.whole(target, found), waiting(target, [found]))

    def is_seen(found: Ask) -> bool:
        return face.shown.is_seen(target, found)

    may_prompt = DRIVE in face.caller.may
    outcome = await face.driver.reply(target, ask, answer, progress(ctx), is_seen, may_prompt=may_prompt)
    return answered(*turned(target, outcome, face.shown))


def _listed(face: Face, target: Instance, asks: list[Ask]) -> CallToolResult:
    text = face.shown.text(target, asks) if asks else f"{target.quoted} waits for nothing."
    if target.state.asks_left_out:
        text += f"\n{target.state.asks_left_out} more asks are open than can be listed; settle these first."
    return answered(text, waiting(target, asks))


TOOL = Tool(reply, "Settle what an agent asks")
