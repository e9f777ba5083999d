"""The MCP face: four tools over the fleet, each a method of one class. No decisions here that are not about MCP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from mcp.server.mcpserver import Context  # noqa: TC002 - the SDK evaluates the annotations of tools
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, WithJsonSchema

from opencode_common.text import clean, one_line
from opencode_fleet.errors import Refused, RelayError
from opencode_fleet.fleet import Fleet  # noqa: TC001 - as above
from opencode_mcp.asks import ask_row
from opencode_mcp.render import (
    MAX_TEXT,
    InstanceRows,
    fitting,
    instances_text,
    message_rows,
    read_text,
    session_manner,
    session_problem,
    turn_result,
    turn_text,
)
from opencode_mcp.rows import InstancesResult, ReadResult, TurnResult
from opencode_mcp.shown import Shown

if TYPE_CHECKING:
    from opencode_fleet.drive import Driver
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Message, Outcome

MAX_MESSAGE = 200_000
PROGRESS_LENGTH = 4_000
PROGRESS_INTERVAL = 2.0
"""Seconds between two words of how much of a conversation came."""

ToolFunction = Callable[..., Awaitable[CallToolResult]]
InstanceName = Annotated[str, Field(description="name, or an unambiguous part of it", max_length=200)]


def _optional_text(description: str) -> WithJsonSchema:
    """Describe an optional string briefly; models that spell out a null are understood all the same."""
    return WithJsonSchema({"type": "string", "description": description})


class Tools:
    """The tools; each is a coroutine method that `TOOLS` lists."""

    def __init__(self, fleet: Fleet, driver: Driver) -> None:
        self._fleet = fleet
        self._driver = driver
        self._rows = InstanceRows()
        self._shown = Shown()

    async def instances(self) -> Annotated[CallToolResult, InstancesResult]:
        """List every OpenCode instance: state, directory, newest session, what it waits for."""
        listed = [self._rows.of(instance) for instance in await self._fleet.instances()]
        shown = fitting([line for _, line in listed])
        result = InstancesResult.model_construct(
            instances=[row for row, _ in listed[:shown]],
            left_out=dict(Counter(row.state for row, _ in listed[shown:])),
            problems=self._fleet.problems(),
        )
        text = instances_text([line for _, line in listed[:shown]], result, self._fleet.absence())
        return _result(text, result)

    async def send(
        self,
        ctx: Context[Fleet, Any],
        instance: InstanceName,
        message: Annotated[str, Field(max_length=MAX_MESSAGE)] = "",
        abort: Annotated[bool, Field(description="first stop what it runs; needs no message")] = False,
        session: Annotated[str | None, _optional_text("ses_… id, or 'new'; default: the current one")] = None,
    ) -> Annotated[CallToolResult, TurnResult]:
        """Send an instance's agent a message; wait for its answer, question or permission request."""
        if not message.strip() and not abort:
            raise Refused("`message` is empty; nothing was sent")
        target = await self._fleet.find_live(instance)
        wanted = (session or "").strip() or None
        if abort:
            stopped = await self._driver.stop(target, wanted)
            if not message.strip():
                return _stopped(target, stopped)
            wanted = wanted or stopped
        return self._turned(target, await self._driver.send(target, message, wanted, _progress(ctx)))

    async def read(
        self,
        ctx: Context[Fleet, Any],
        instance: InstanceName,
        message_limit: Annotated[int, Field(ge=1, le=200)] = 10,
        session: Annotated[str | None, _optional_text("ses_… id; default: the current one")] = None,
        max_chars: Annotated[int, Field(ge=1_000, le=200_000)] = MAX_TEXT,
    ) -> Annotated[CallToolResult, ReadResult]:
        """Show the last messages of an instance's conversation, with tool calls and what streams now."""
        target = await self._fleet.find_live(instance)
        found = await self._driver.sessions.to_read(target, (session or "").strip() or None)
        if found is None:
            raise Refused(f"{target.quoted} has no session yet; `send` starts one")
        messages = await _fetched(ctx, target, found.id, message_limit)
        state = target.state
        busy = state.is_busy(found.id) or state.family_busy(found.id)
        status = state.statuses.get(found.id)
        retries = status is not None and status.kind == "retry"
        agent, model = session_manner(found, messages)
        pick_up = f"`send` with session {found.id} goes on with it, as “continue”"
        # Of a root session its subagents' asks too.
        asks = [ask for ask in state.pending_asks() if found.id in {ask.session_id, state.root_of(ask.session_id)}]
        result = ReadResult(
            instance=target.name,
            session=found.id,
            title=one_line(found.title, 200),
            state="retry" if retries else "busy" if busy else "idle",
            agent=agent,
            model=model,
            problem=one_line(status.describe(), 300)
            if status is not None and retries
            else session_problem(messages, busy=busy, pick_up=pick_up),
            messages=message_rows(messages, state.live(found.id).parts, max_chars, busy=busy),
            asks=[ask_row(target, ask) for ask in asks],
        )
        return _result(read_text(result, self._shown.text(target, asks) if asks else ""), result)

    async def reply(
        self,
        ctx: Context[Fleet, Any],
        instance: InstanceName,
        answer: Annotated[
            str | list[str],
            Field(description="permission: once, always, reject or 'reject: why'; question: label or text"),
        ] = "",
        ask: Annotated[
            str,
            Field(
                description="its id; without `answer` it is shown whole, without it all are listed", max_length=100
            ),
        ] = "",
    ) -> Annotated[CallToolResult, TurnResult]:
        """List what an agent waits for; with `ask` and the person's own answer, settle it and go on."""
        target = await self._fleet.find_live(instance)
        if not ask.strip():
            return self._listed(target, await self._driver.asks(target))
        if isinstance(answer, str) and not answer.strip():
            found = await self._driver.open_ask(target, ask)
            return _result(self._shown.whole(target, found), _waiting(target, [found]))

        def is_seen(found: Ask) -> bool:
            return self._shown.is_seen(target, found)

        return self._turned(target, await self._driver.reply(target, ask, answer, _progress(ctx), is_seen))

    def _listed(self, target: Instance, asks: list[Ask]) -> CallToolResult:
        text = self._shown.text(target, asks) if asks else f"{target.quoted} waits for nothing."
        if target.state.asks_left_out:
            text += f"\n{target.state.asks_left_out} more asks are open than can be listed; settle these first."
        return _result(text, _waiting(target, asks))

    def _turned(self, target: Instance, outcome: Outcome) -> CallToolResult:
        turn = turn_result(target, outcome)
        return _result(turn_text(turn, self._shown.text(target, outcome.asks) if outcome.asks else ""), turn)


class Tool(NamedTuple):
    """How a method of `Tools` is offered."""

    function: Callable[..., Awaitable[CallToolResult]]
    title: str
    is_read_only: bool = False

    def annotations(self) -> ToolAnnotations:
        """Return the hints that clients get."""
        return ToolAnnotations(
            title=self.title,
            read_only_hint=self.is_read_only,
            destructive_hint=None if self.is_read_only else True,
            open_world_hint=True,
        )


TOOLS = (
    Tool(Tools.instances, "List instances", is_read_only=True),
    Tool(Tools.send, "Send a task"),
    Tool(Tools.read, "Read a conversation", is_read_only=True),
    Tool(Tools.reply, "Settle what an agent asks"),
)


def user_errors(tool: ToolFunction) -> ToolFunction:
    """Return what a person can mend as a tool error in its own words; the SDK would put a prefix before them."""

    @wraps(tool)
    async def guarded(*args: Any, **kwargs: Any) -> CallToolResult:
        try:
            return await tool(*args, **kwargs)
        except RelayError as error:
            return failure(str(error))

    return guarded


def failure(text: str) -> CallToolResult:
    """Return a tool error."""
    return CallToolResult(content=[TextContent(type="text", text=clean(text))], is_error=True)


def _result(text: str, structured: BaseModel) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured.model_dump(mode="json", exclude_defaults=True),
    )


def _stopped(target: Instance, session_id: str | None) -> CallToolResult:
    text = f"stopped session {session_id}" if session_id else "nothing ran, so nothing was stopped"
    turn = TurnResult(instance=target.name, session=session_id or "", result="stopped" if session_id else "idle")
    return _result(f"{target.quoted}: {text}.", turn)


def _waiting(target: Instance, asks: list[Ask]) -> TurnResult:
    rows = [ask_row(target, ask) for ask in asks]
    return TurnResult(instance=target.name, session="", result="waits" if asks else "idle", asks=rows)


async def _fetched(ctx: Context[Fleet, Any], target: Instance, session_id: str, limit: int) -> list[Message]:
    """Return the newest messages; while that takes long, say how much of them came."""
    came = 0

    def arrived(size: int) -> None:
        nonlocal came
        came += size

    fetching = asyncio.create_task(target.agent.messages(session_id, limit, arrived=arrived))
    try:
        while not (await asyncio.wait({fetching}, timeout=PROGRESS_INTERVAL))[0]:
            await ctx.report_progress(came, message=f"{came / 1000:.0f} kB of the conversation came so far")
        return await fetching
    finally:
        fetching.cancel()


def _progress(ctx: Context[Fleet, Any]) -> Callable[[str], Awaitable[None]]:
    told = 0

    async def on_text(text: str) -> None:
        nonlocal told
        told += len(text)
        await ctx.report_progress(told, message=clean(text[-PROGRESS_LENGTH:]))

    return on_text
