"""Who makes a call, whose word counts for that, and what it decides."""

from __future__ import annotations

import getpass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from mcp.client import Client
from mcp_types import CallToolResult, TextContent

from opencode_fleet.agent import Capability
from opencode_fleet.drive import Driver
from opencode_fleet.settings import ServerSettings
from opencode_mcp import server
from opencode_mcp.caller import KEY, NOBODY, Caller, account, caller_of
from opencode_mcp.face import Face
from opencode_mcp.tool import Tool
from opencode_mcp.tools import instances, reply, send
from support.fleet.fake_transport import FakeTransport
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.mcpserver import Context
    from mcp_types import RequestParamsMeta

    from opencode_fleet.fleet import Fleet

ANN = Caller("ann", frozenset({"observe", "approve", "drive"}))
BEN = Caller("ben", frozenset({"observe", "approve"}))
LONG = f"ask {'x' * 7_000}"
"""What is not shown whole unasked."""


def called(meta: dict[str, Any] | None) -> Context[Fleet, Any]:
    """Return the context of a call that came with this in its `_meta`."""
    return cast("Context[Fleet, Any]", SimpleNamespace(request_context=SimpleNamespace(meta=meta)))


def text(result: CallToolResult) -> str:
    return "\n".join(getattr(block, "text", "") for block in result.content)


class Called:
    """The tools over a fleet of one scripted agent, as the server offers them, called by whom a test says."""

    def __init__(self, fleet: Fleet) -> None:
        self._face = Face(fleet, Driver(fleet, 30))

    async def by(self, caller: Caller, tool: Callable[..., Awaitable[CallToolResult]], **arguments: Any) -> str:
        offered = next(each for each in (reply.TOOL, send.TOOL, instances.TOOL) if each.function is tool)
        bound = offered.over(self._face, lambda _ctx: caller)
        return text(await bound(ctx=Notes().context(), **arguments))


def test_a_client_s_own_word_counts_for_nothing_where_the_parent_has_not_said_that_it_tells() -> None:
    forged = called({KEY: {"login": "root", "may": []}})

    assert caller_of(forged, own=ANN, told=False) == ANN
    assert account() == Caller(getpass.getuser(), frozenset({"observe", "approve", "drive"}))


def test_the_parent_s_word_counts_where_it_has_said_that_it_tells() -> None:
    said = called({"other": 1, KEY: {"login": "ben", "may": ["observe", "approve"]}})

    assert caller_of(said, own=ANN, told=True) == BEN


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {KEY: None},
        {KEY: "ann"},
        {KEY: {"login": "", "may": ["drive"]}},
        {KEY: {"login": "ann"}},
        {KEY: {"login": 7, "may": ["drive"]}},
        {KEY: {"login": "a" * 500, "may": ["drive"]}},
    ],
)
def test_where_the_parent_tells_and_says_nothing_that_can_be_read_nobody_calls(meta: dict[str, Any] | None) -> None:
    assert caller_of(called(meta), own=ANN, told=True) == NOBODY


async def whoami(face: Face) -> CallToolResult:
    """Answer with the caller, as a tool sees it."""
    return CallToolResult(content=[TextContent(type="text", text=f"{face.caller.login}: {sorted(face.caller.may)}")])


@pytest.mark.parametrize("told", [True, False])
async def test_the_server_believes_what_a_call_says_only_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    monkeypatch.setattr(server, "TOOLS", (Tool(whoami, "Who I am"),))
    served = server.build_server(ServerSettings(callers_told=told), FakeTransport(), "1.0")
    meta = cast("RequestParamsMeta", {KEY: {"login": "ben", "may": ["observe"]}})

    async with Client(served) as client:
        (tool,) = (await client.list_tools()).tools
        result = await client.call_tool("whoami", meta=meta)

    assert tool.input_schema.get("properties", {}) == {}, "callers see no context"
    own = f"{account().login}: ['approve', 'drive', 'observe']"
    assert text(result) == ("ben: ['observe']" if told else own)


async def test_a_tool_that_needs_no_context_is_offered_over_its_caller_s_face_too() -> None:
    async with fake_fleet(laptop=FakeAgent()) as (fleet, _):
        assert "laptop" in await Called(fleet).by(BEN, instances.instances)


@pytest.mark.parametrize("message", ["ask me", LONG])
async def test_what_ann_was_shown_ben_does_not_approve(message: str) -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        tools = Called(fleet)
        await tools.by(ANN, send.send, instance=["laptop"], message=message)
        (ask,) = agent.open
        await tools.by(ANN, reply.reply, instance="laptop", ask=ask)

        refused = await tools.by(BEN, reply.reply, instance="laptop", ask=ask, answer="once")

        assert "was not shown whole" in refused
        assert agent.decisions == []
        await tools.by(BEN, reply.reply, instance="laptop", ask=ask)
        await tools.by(BEN, reply.reply, instance="laptop", ask=ask, answer="once")
        assert agent.decisions == [("once", None)]


async def test_what_send_or_a_list_showed_whole_its_caller_approves_and_others_reject() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        tools = Called(fleet)
        for caller, answer in ((ANN, "once"), (BEN, "reject")):
            await tools.by(ANN, send.send, instance=["laptop"], message="ask me")
            (ask,) = agent.open
            await tools.by(caller, reply.reply, instance="laptop", ask=ask, answer=answer)
        await tools.by(ANN, send.send, instance=["laptop"], message="ask me")
        (ask,) = agent.open
        await tools.by(BEN, reply.reply, instance="laptop")
        await tools.by(BEN, reply.reply, instance="laptop", ask=ask, answer="once")

        assert agent.decisions == [("once", None), ("reject", None), ("once", None)]


async def test_not_even_a_short_ask_that_another_process_of_the_account_showed_is_approved_unlisted() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        await Called(fleet).by(account(), send.send, instance=["laptop"], message="ask me")
        (ask,) = agent.open
        other = Called(fleet)
        refused = await other.by(account(), reply.reply, instance="laptop", ask=ask, answer="once")
        assert refused.startswith("it was not shown whole, and nothing is approved unseen.")
        assert agent.decisions == []

        await other.by(account(), reply.reply, instance="laptop", ask=ask)
        await other.by(account(), reply.reply, instance="laptop", ask=ask, answer="once")
        assert agent.decisions == [("once", None)]


@pytest.mark.parametrize("reaches", [True, False])
async def test_who_may_not_send_rejects_with_a_reason_only_where_that_is_no_message(reaches: bool) -> None:
    agent = FakeAgent(can=frozenset({Capability.REASONS}) if reaches else frozenset())
    async with fake_fleet(laptop=agent) as (fleet, _):
        tools = Called(fleet)
        await tools.by(ANN, send.send, instance=["laptop"], message="ask me")
        (ask,) = agent.open

        told = await tools.by(BEN, reply.reply, instance="laptop", ask=ask, answer="reject: use the other one")

        if reaches:
            assert agent.decisions == [("reject", "use the other one")]
            return
        assert "needs the capability drive; answer `reject` without a reason. Nothing was settled" in told
        assert agent.decisions == []
        await tools.by(BEN, reply.reply, instance="laptop", ask=ask, answer="reject")
        assert agent.decisions == [("reject", None)]
        assert [prompt.text for prompt in agent.posted] == ["ask me"]


async def test_who_may_send_rejects_with_a_reason_everywhere() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        tools = Called(fleet)
        await tools.by(ANN, send.send, instance=["laptop"], message="ask me")
        (ask,) = agent.open

        await tools.by(ANN, reply.reply, instance="laptop", ask=ask, answer="reject: use the other one")

        assert [prompt.text for prompt in agent.posted] == ["ask me", "use the other one"]
