"""The tool `reply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.errors import Refused
from opencode_fleet.fleet import Fleet
from opencode_fleet.model import Outcome
from opencode_mcp.caller import DRIVE, NOBODY
from opencode_mcp.deciding import by_handle, decide
from opencode_mcp.face import Face
from opencode_mcp.tool import ALL, InstanceName, Tool, answered, progress
from opencode_mcp.views.digests import digest_of
from opencode_mcp.views.turns import ReplyResult, SettledRow, replied, turned, waiting

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask

MAX_ASKS = 100
"""Asks of one call; an id too is at most so long."""
_NOTHING_ANSWERED = "Nothing was answered: say with `ask` which one it is for."


async def reply(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: InstanceName,
    answer: Annotated[
        str | list[str],
        Field(description="permission: once, always, reject, 'reject: why'; question: label, text"),
    ] = "",
    ask: Annotated[
        str | list[str],
        Field(
            description="handle or id, several, or 'all' listed whole; without `answer` it is shown whole, "
            "without it all are listed",
            max_length=MAX_ASKS,
        ),
    ] = "",
) -> Annotated[CallToolResult, ReplyResult]:
    """List what an agent waits for; with `ask` and the person's own answer, settle it and go on."""
    if face.caller.shown:
        return await _decided(face, ask, answer)
    target = await face.fleet.find_live(instance)
    named = [each.strip() for each in ([ask] if isinstance(ask, str) else ask) if each.strip()]
    meant = {each: face.handles.named_ask(target, each) for each in named}
    names = {ask_id: each for each, (ask_id, _) in meant.items()}
    asks = list(names)
    is_answered = not isinstance(answer, str) or bool(answer.strip())
    if not asks or (not is_answered and (len(asks) > 1 or asks == [ALL])):
        return _listed(face, target, await face.driver.asks(target), is_answered=is_answered)
    if not is_answered:
        with by_handle(face, target):
            found = await face.driver.open_ask(target, asks[0])
        return answered(face.shown.whole(target, found), waiting(target, [found], face.shown))

    if face.caller == NOBODY:
        raise Refused("whoever started this server did not say who calls, so nothing was settled")
    if face.ways.is_page_alone:
        return await _decided_there(face, ctx, target, asks)
    digests = {ask_id: digest for ask_id, digest in meant.values() if digest}

    def is_seen(found: Ask) -> bool:
        # The handle stands for what was shown under it, whatever another chat was shown since.
        digest = digest_of(target, found)
        return digests.get(found.id, digest) == digest and face.shown.is_listed(target, found)

    may_prompt = DRIVE in face.caller.may
    if len(asks) == 1 and asks != [ALL]:
        with by_handle(face, target):
            outcome = await face.driver.reply(target, asks[0], answer, progress(ctx), is_seen, may_prompt=may_prompt)
        return answered(*turned(target, outcome, face.shown))
    note = ""
    if asks == [ALL]:
        waits = await face.driver.asks(target)
        names = {each.id: face.shown.name(target, each) for each in waits}
        asks = [each.id for each in waits if is_seen(each)][:MAX_ASKS]
        if others := [names[each.id] for each in waits if each.id not in asks]:
            note = f"not decided, as they were not listed whole before: {', '.join(others[:MAX_ASKS])}"
    replies = await face.driver.reply_to_several(target, asks, answer, progress(ctx), is_seen, may_prompt=may_prompt)
    return answered(*replied(target, replies, face.shown, note, names))


async def _decided(face: Face, ask: str | list[str], answer: str | list[str]) -> CallToolResult:
    """Settle what the page had before the person, and nothing else; the turn goes on by itself."""
    if not isinstance(ask, str):
        raise Refused("a page decides one ask at a time; nothing was settled")
    target, settlement = await decide(face, ask, face.caller.shown, answer)
    row = SettledRow(ask=ask.strip(), result="settled", text=settlement.decision)
    result = ReplyResult(instance=target.name, session="", result="settled", settled=[row])
    return answered(f"{target.quoted}, {row.ask}: settled ({row.text}).", result)


async def _decided_there(face: Face, ctx: Context[Fleet, Any], target: Instance, asks: list[str]) -> CallToolResult:
    """Settle nothing, and wait for what the person decides on the page."""
    if len(asks) > 1 or asks == [ALL]:
        waits = [ask for ask in await face.driver.asks(target) if asks == [ALL] or ask.id in asks]
        if not waits:
            return _listed(face, target, await face.driver.asks(target), is_answered=True)
        told = face.ways.not_here([face.shown.name(target, ask) for ask in waits])
        return answered(told, waiting(target, waits, face.shown).model_copy(update={"note": told}))
    on_text = progress(ctx)
    with by_handle(face, target):
        ask = await face.driver.open_ask(target, asks[0])
        told = face.ways.not_yet(face.shown.name(target, ask))
        await on_text(told)
        outcome = await face.driver.settled_there(target, ask.id, on_text)
    if isinstance(outcome, Outcome):
        return answered(*turned(target, outcome, face.shown))
    return answered(told, waiting(target, [outcome], face.shown).model_copy(update={"note": told}))


def _listed(face: Face, target: Instance, asks: list[Ask], *, is_answered: bool) -> CallToolResult:
    text = face.shown.text(target, asks) if asks else f"{target.quoted} waits for nothing."
    if target.state.asks_left_out:
        text += f"\n{target.state.asks_left_out} more asks are open than can be listed; settle these first."
    if is_answered:
        text = f"{_NOTHING_ANSWERED}\n{text}"
    note = _NOTHING_ANSWERED if is_answered else ""
    return answered(text, waiting(target, asks, face.shown).model_copy(update={"note": note}))


TOOL = Tool(reply, "Settle what an agent asks")
