"""The tool `control`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.control import Action, Done, Wish
from opencode_fleet.errors import Refused
from opencode_mcp.face import Face
from opencode_mcp.tool import Instances, Tool, answered, means_all, optional_text
from opencode_mcp.views.controls import ControlResult, control_result, control_text

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance


async def control(
    face: Face,
    instance: Instances,
    action: Literal[Action, "cancel"],
    session: Annotated[
        str | None, optional_text("id or handle; default: the current one, to stop all that run")
    ] = None,
    value: Annotated[
        str,
        Field(description="title, agent, PROVIDER/MODEL, directory to open, or message to cancel", max_length=4_096),
    ] = "",
    plan: Annotated[str, Field(description="handle of what an earlier call showed", max_length=40)] = "",
) -> Annotated[CallToolResult, ControlResult]:
    """Stop, compact, fork, undo, redo, rename or archive a session; switch its agent or model; open, close instances.

    What destroys is shown first; on the person's word call again with the `plan`.
    """
    if action in ("open", "close"):
        return await _open_or_close(face, instance, action, session, value, plan)
    if action == "cancel":
        return _cancel(face, instance, value)
    instances = await _meant(face, instance)
    wanted = (session or "").strip() or None
    if wanted and len(instances) != 1:
        raise Refused("a `session` is one instance's; say that one. Nothing was done")
    wish = Wish(action, face.handles.session_id(instances[0], wanted) if wanted else None, value, plan.strip())
    if action == "stop":
        done = await face.controller.stop(instances, wish)
    elif len(instances) == 1 and not means_all(instance):
        done = [await face.controller.act(instances[0], wish)]
    else:
        raise Refused(f"only “stop” is done to several instances at once; nothing was done to any ({action})")
    result = control_result(done)
    return answered(control_text(result), result)


async def _open_or_close(
    face: Face, names: list[str], action: Action, session: str | None, value: str, plan: str
) -> CallToolResult:
    if means_all(names) or len(names) > 1:
        raise Refused(f"“{action}” is done on one machine at once; nothing was done")
    if session:
        raise Refused(f"“{action}” is done to a directory: leave `session` out. Nothing was done")
    if action == "open":
        done = await face.opener.open(names[0], value)
    else:
        # First, as what a plan has closed is no instance any more.
        told = face.opener.did(plan.strip())
        done = told or await face.opener.close(await face.fleet.find_live(names[0]), plan.strip())
    result = control_result([done])
    return answered(control_text(result), result)


def _cancel(face: Face, names: list[str], handle: str) -> CallToolResult:
    """Take back a message that waits, also for an instance that is not there."""
    if len(names) > 1:
        raise Refused("one message is cancelled at a time, of one instance; nothing was cancelled")
    if not handle.strip():
        raise Refused("`value` is the handle of the message, as m3; `inbox` lists them. Nothing was cancelled")
    instance = "" if means_all(names) else names[0]
    message = face.outbox.cancel(handle, instance, face.caller.login, face.handles.of_session)
    done = Done("done", f"{message.handle} was cancelled, and is not sent", message.instance)
    result = control_result([done])
    return answered(control_text(result), result)


async def _meant(face: Face, names: list[str]) -> list[Instance]:
    """Return the instances, each once. Raises `NoSuchInstance` or `InstanceError`: nothing is to be done then."""
    if means_all(names):
        return [instance for instance in await face.fleet.instances() if instance.connected.is_set()]
    found = await asyncio.gather(*map(face.fleet.find_live, names))
    return list({instance.name: instance for instance in found}.values())


TOOL = Tool(control, "Control sessions")
