"""The tool `send`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.choices import Manner, When
from opencode_fleet.errors import FleetError, Refused, Unreachable
from opencode_fleet.fleet import Fleet
from opencode_fleet.later import Kept
from opencode_fleet.outbox import Draft
from opencode_fleet.sessions import NEW_SESSION
from opencode_mcp.attachments import Given
from opencode_mcp.face import Face
from opencode_mcp.tool import MAX_INSTANCES, Instances, Tool, answered, means_all, optional_text, progress
from opencode_mcp.views.messages import kept
from opencode_mcp.views.turns import SendResult, sent_to_all, stopped, turned, upload_asked

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance

MAX_MESSAGE = 200_000
Moment = Literal[When, "asleep"]
"""`asleep`: at once if the instance is there and idle, else kept until it is."""


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
        Moment,
        Field(
            description="now: refused while busy; steer: into the running turn; queue: after it; "
            "asleep: kept until it is back"
        ),
    ] = "now",
    agent: Annotated[str | None, optional_text("agent (mode) from now on, as plan; default: as it is")] = None,
    model: Annotated[str | None, optional_text("PROVIDER/MODEL from now on; default: as it is")] = None,
    files: Given = [],  # noqa: B006 - the SDK takes defaults from here, and pydantic copies them
) -> Annotated[CallToolResult, SendResult]:
    """Send an instance's agent a message; wait for its answer, question or permission request."""
    if (link := face.attachments.link(files, face.caller.login)) is not None:
        return answered(*upload_asked(link))
    if not message.strip() and not abort:
        raise Refused("`message` is empty; nothing was sent")
    if when == "asleep":
        if abort or means_all(instance) or len(instance) > 1:
            raise Refused("when='asleep' is for one instance at a time, without `abort`; nothing was sent")
        kept_as = Manner("now", (agent or "").strip(), (model or "").strip())
        return await _send_later(face, ctx, instance[0], message, session or "", kept_as, files)
    if files and not message.strip():
        raise Refused("`files` go with a message, which is empty; nothing was stopped and nothing sent")
    attached = await face.attachments.files(files, message, face.caller.login)
    manner = Manner(when, (agent or "").strip(), (model or "").strip(), attached)
    if means_all(instance) or len(instance) > 1:
        return await _send_to_all(
            face, instance, message, (session or "").strip() or None, manner, files, abort=abort
        )
    target = await _there(face, instance[0])
    wanted = face.handles.session_id(target, session)
    if abort:
        ended = await face.driver.stop(target, wanted)
        if not message.strip():
            return answered(*stopped(target, ended, face.shown))
        wanted = wanted or ended
    outcome = await face.driver.send(target, message, wanted, progress(ctx), manner)
    face.attachments.sent(files)
    return answered(*turned(target, outcome, face.shown))


async def _there(face: Face, name: str) -> Instance:
    """Return the instance. Raises `Unreachable` where it is away: the message says how to leave a message for it."""
    try:
        return await face.fleet.find_live(name)
    except Unreachable as error:
        raise Unreachable(f"{error}. With when='asleep' the message is kept until it is back") from error


async def _send_later(
    face: Face, ctx: Context[Fleet, Any], name: str, message: str, session: str, manner: Manner, files: Given
) -> CallToolResult:
    place = await face.later.place(name)
    wanted = face.handles.session_id_at(place.name, session)
    login = face.caller.login
    attached = await face.attachments.files(files, message, login)
    draft = Draft(place.name, message, login, wanted, manner.agent, manner.model, files=attached)
    sent = await face.later.send(place, draft, progress(ctx))
    face.attachments.sent(files)
    if isinstance(sent, Kept):
        return answered(*kept(sent))
    target = await face.fleet.find(place.name)
    outcome = replace(sent, note=sent.note or "it is there, so the message was sent at once")
    return answered(*turned(target, outcome, face.shown))


async def _send_to_all(
    face: Face, names: list[str], message: str, wanted: str | None, manner: Manner, files: Given, *, abort: bool
) -> CallToolResult:
    if abort:
        raise Refused("`abort` is for one instance at a time; nothing was stopped and nothing sent")
    if wanted not in {None, NEW_SESSION}:
        raise Refused(f"of several instances `session` can only be {NEW_SESSION!r}; nothing was sent")
    targets = await _targets(face.fleet, names)
    outcomes = await face.driver.send_to_all(targets, message, wanted, manner)
    if not all(isinstance(outcome, FleetError) for outcome in outcomes):
        face.attachments.sent(files)
    return answered(*sent_to_all(list(zip(targets, outcomes, strict=True)), face.shown))


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
