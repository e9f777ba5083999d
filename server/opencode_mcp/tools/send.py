"""The tool `send`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.choices import Manner, When
from opencode_fleet.errors import Refused
from opencode_fleet.fleet import Fleet
from opencode_fleet.sessions import NEW_SESSION
from opencode_mcp.face import Face
from opencode_mcp.tool import MAX_INSTANCES, Instances, Tool, answered, means_all, optional_text, progress
from opencode_mcp.views.turns import SendResult, sent_to_all, stopped, turned

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance

MAX_MESSAGE = 200_000


async def send(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: Instances,
    message: Annotated[str, Field(description="/name runs that command of OpenCode", max_length=MAX_MESSAGE)] = "",
    abort: Annotated[bool, Field(description="first stop what it runs; needs no message")] = False,
    session: Annotated[
        str | None, optional_text("id, handle, words of its title, or 'new'; default: the current one")
    ] = None,
    when: Annotated[
        When, Field(description="now: refused while busy; steer: into the running turn; queue: after it")
    ] = "now",
    agent: Annotated[str | None, optional_text("agent (mode) from now on, as plan; default: as it is")] = None,
    model: Annotated[str | None, optional_text("PROVIDER/MODEL from now on; default: as it is")] = None,
) -> Annotated[CallToolResult, SendResult]:
    """Send an instance's agent a message; wait for its answer, question or permission request."""
    if not message.strip() and not abort:
        raise Refused("`message` is empty; nothing was sent")
    manner = Manner(when, (agent or "").strip(), (model or "").strip())
    if means_all(instance) or len(instance) > 1:
        return await _send_to_all(face, instance, message, (session or "").strip() or None, manner, abort=abort)
    target = await face.fleet.find_live(instance[0])
    wanted = face.handles.session_id(target, session)
    if abort:
        ended = await face.driver.stop(target, wanted)
        if not message.strip():
            return answered(*stopped(target, ended))
        wanted = wanted or ended
    outcome = await face.driver.send(target, message, wanted, progress(ctx), manner)
    return answered(*turned(target, outcome, face.shown))


async def _send_to_all(
    face: Face, names: list[str], message: str, wanted: str | None, manner: Manner, *, abort: bool
) -> CallToolResult:
    if abort:
        raise Refused("`abort` is for one instance at a time; nothing was stopped and nothing sent")
    if wanted not in {None, NEW_SESSION}:
        raise Refused(f"of several instances `session` can only be {NEW_SESSION!r}; nothing was sent")
    targets = await _targets(face.fleet, names)
    outcomes = await face.driver.send_to_all(targets, message, wanted, manner)
    return answered(*sent_to_all(list(zip(targets, outcomes, strict=True))))


async def _targets(fleet: Fleet, names: list[str]) -> list[Instance]:
    """Return the instances that are meant, each once. Raises `NoSuchInstance` if a name is not clear."""
    if means_all(names):
        living = [instance for instance in await fleet.instances() if instance.offline_since is None]
        if len(living) > MAX_INSTANCES:
            raise Refused(
                f"{len(living)} instances are there, and a message goes to {MAX_INSTANCES} at most: name them. "
                "Nothing was sent"
            )
        if not living:
            raise Refused(f"{fleet.absence()}. Nothing was sent")
        return living
    return list(dict.fromkeys([await fleet.find(name) for name in names]))


TOOL = Tool(send, "Send a task")
