"""Many chats at once through Caddy and the gateway to real OpenCode: what is one's own stays so."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.fleet.registry import register, registration
from support.gateway.crowd import ERAS, all_at_gates, all_send, crowd, open_gates, wrong_with
from support.gateway.public_gateway import PublicGateway
from support.processes import has_ended
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from support.chat.mcp_client import Answer
    from support.gateway.crowd import Chat
    from support.opencodes.opencode import ServedOpenCode
    from support.opencodes.scripted_model import ScriptedModel

SESSIONS = 12
# Long enough for so many turns to begin on a machine that has much else to do.
TOOL_SECONDS = 100.0
INSTANCES = ["laptop"]


@pytest.fixture(scope="module")
def public_gateway(tmp_path_factory: pytest.TempPathFactory, opencode: ServedOpenCode) -> Iterator[PublicGateway]:
    """The gateway behind Caddy, with the shared OpenCode registered as `laptop`."""
    directory = tmp_path_factory.mktemp("public")
    register(directory / "registry", registration("laptop", opencode.port, cwd=str(opencode.cwd)))
    with PublicGateway(directory, directory / "registry", tool_timeout_seconds=TOOL_SECONDS) as gateway:
        yield gateway


def children(gateway: PublicGateway) -> list[psutil.Process]:
    return gateway.process.children()


def kill_child(gateway: PublicGateway) -> None:
    (child,) = children(gateway)
    child.kill()


def busy(opencode: ServedOpenCode) -> set[str]:
    with opencode.client() as http:
        return set(http.get("/session/status").json())


def sent(chat: Chat, model: ScriptedModel) -> int:
    return len(model.turns(chat.marker))


async def reads(chat: Chat, session: str) -> str:
    """Return the last message of a session; nothing while it is being written."""
    answer = await chat.client.call("read", instance=chat.instance, session=session)
    return "" if answer.structured["state"] == "busy" else str(answer.structured["messages"][-1]["text"])


async def test_of_many_sessions_at_once_nothing_is_crossed_lost_or_doubled(
    public_gateway: PublicGateway, model: ScriptedModel
) -> None:
    async with crowd(public_gateway, INSTANCES, SESSIONS, "many") as chats:
        assert await all_send(chats, model, public_gateway) == []
        assert len(children(public_gateway)) <= len(ERAS)


@pytest.mark.parametrize("cancelled", range(len(ERAS)), ids=ERAS)
async def test_a_call_that_is_cancelled_stops_no_agent_and_disturbs_nobody(
    public_gateway: PublicGateway, opencode: ServedOpenCode, model: ScriptedModel, cancelled: int
) -> None:
    async with crowd(public_gateway, INSTANCES, SESSIONS, f"cancel-{cancelled}") as chats:
        calls = [asyncio.create_task(chat.send()) for chat in chats]
        await all_at_gates(chats, model)
        (session,) = {turn.session for turn in model.turns(chats[cancelled].marker)}
        calls[cancelled].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[cancelled]
        assert len(busy(opencode)) == SESSIONS
        open_gates(chats, model)
        for chat, call in zip(chats, calls, strict=True):
            if chat is not chats[cancelled]:
                assert wrong_with(chat, await call, model) == []
        # The same client asks what became of it.
        await eventually_async(lambda: reads(chats[cancelled], session), "the end of its turn")
        assert await reads(chats[cancelled], session) == chats[cancelled].answer
        assert sent(chats[cancelled], model) == 1


async def test_when_the_child_is_killed_every_call_says_so_and_nothing_is_sent_twice(
    public_gateway: PublicGateway, model: ScriptedModel
) -> None:
    async with crowd(public_gateway, INSTANCES, SESSIONS, "killed") as chats:
        calls = [asyncio.create_task(chat.send()) for chat in chats]
        await all_at_gates(chats, model)
        kill_child(public_gateway)
        for answer in await asyncio.gather(*calls):
            assert is_clear(answer), answer
        open_gates(chats, model)
        # All ask at once what became of their messages, of one new child.
        for chat in chats:
            (turn,) = model.turns(chat.marker)
            await eventually_async(partial(reads, chat, turn.session), "the end of its turn")
            assert await reads(chat, turn.session) == chat.answer
        assert len(children(public_gateway)) <= len(ERAS)
        async with crowd(public_gateway, INSTANCES, SESSIONS, "after-killed") as others:
            assert await all_send(others, model, public_gateway) == []
        assert [sent(chat, model) for chat in chats] == [1] * SESSIONS


def is_clear(answer: Answer) -> bool:
    """Tell whether it says that the outcome is not known, and what to do next."""
    return answer.is_error and "Whether it was done is not known: look with `read`" in answer.text


async def test_when_the_child_is_killed_while_messages_are_being_sent_none_is_sent_twice(
    public_gateway: PublicGateway, model: ScriptedModel
) -> None:
    async with crowd(public_gateway, INSTANCES, SESSIONS, "early") as chats:
        open_gates(chats, model)
        calls = [asyncio.create_task(chat.send()) for chat in chats]
        # As soon as the first has arrived, the others are at every place between client and agent.
        await eventually_async(lambda: any(sent(chat, model) for chat in chats), "a message", within=60)
        (child,) = children(public_gateway)
        child.kill()
        answers = await asyncio.gather(*calls)
        assert has_ended(child)
        for chat, answer in zip(chats, answers, strict=True):
            assert is_clear(answer) or wrong_with(chat, answer, model) == [], answer
        async with crowd(public_gateway, INSTANCES, 2, "after-early") as others:
            assert await all_send(others, model, public_gateway) == []
        assert all(sent(chat, model) <= 1 for chat in chats)
