"""A call that was cut off while its message was being posted, and is repeated: nothing is lost, or sent twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import repeats as repeats_module
from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, InstanceError, Unreachable
from opencode_fleet.model import Prompt
from opencode_fleet.repeats import MAX_REMEMBERED, Call, Repeats, Sent
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Outcome

    Send = Callable[[Driver, Instance], Coroutine[Any, Any, Outcome]]

REFUSED = Unreachable("nobody listens", refused=True)
DOUBTFUL = BadAnswer("no answer of OpenCode's")


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


class Held(FakeAgent):
    """An agent that holds up what is posted to it, and then raises `breaks`, once."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.breaks: InstanceError | None = None
        self.calls = 0

    async def prompt(self, prompt: Prompt) -> None:
        """See `Agent.prompt`."""
        await self._hold()
        await super().prompt(prompt)

    async def run(self, name: str, prompt: Prompt) -> str:
        """See `Agent.run`."""
        await self._hold()
        return await super().run(name, prompt)

    async def _hold(self) -> None:
        self.calls += 1
        await self.held.wait()
        error, self.breaks = self.breaks, None
        if error is not None:
            raise error


async def to_one(driver: Driver, instance: Instance) -> Outcome:
    return await driver.send(instance, "hello", None, ignored)


async def to_several(driver: Driver, instance: Instance) -> Outcome:
    (outcome,) = await driver.send_to_all([instance], "hello", None)
    if isinstance(outcome, InstanceError):
        raise outcome
    assert not isinstance(outcome, Exception)
    return outcome


async def a_command(driver: Driver, instance: Instance) -> Outcome:
    return await driver.send(instance, "/greet Ann", None, ignored)


every_way = pytest.mark.parametrize("send", [to_one, to_several, a_command])


async def cut_off(agent: Held, call: asyncio.Task[Outcome]) -> None:
    """Let its caller go away while the message is being posted."""
    await eventually_async(lambda: agent.calls, "the post")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@every_way
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_surely_did_not_arrive_is_sent_by_the_same_call_again(send: Send, when: str) -> None:
    agent = Held()
    agent.breaks = REFUSED
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        await cut_off(agent, asyncio.create_task(send(driver, laptop)))
        if when == "before":
            agent.held.set()
            await eventually_async(lambda: not laptop.posting, "the end of the post")
        again = asyncio.create_task(send(driver, laptop))
        agent.held.set()
        assert "was sent before" not in (await again).note
        assert len(agent.posted) + len(agent.ran) == 1


@every_way
async def test_what_may_have_arrived_is_not_called_sent_nor_sent_again(send: Send) -> None:
    agent = Held()
    agent.breaks = DOUBTFUL
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        await cut_off(agent, asyncio.create_task(send(driver, laptop)))
        agent.held.set()
        with pytest.raises(InstanceError, match="no answer of OpenCode's"):
            await send(driver, laptop)
        assert agent.calls == 1


@every_way
async def test_what_is_being_posted_still_is_waited_for(send: Send) -> None:
    agent = Held()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        await cut_off(agent, asyncio.create_task(send(driver, laptop)))
        second = asyncio.create_task(send(driver, laptop))
        await asyncio.wait({second}, timeout=0)
        second.cancel()
        await asyncio.wait({second})
        third = asyncio.create_task(send(driver, laptop))
        agent.held.set()
        assert "nothing was sent again" in (await third).note
        assert agent.calls == 1


async def test_what_was_cut_off_is_remembered_for_a_while_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post = asyncio.create_task(asyncio.sleep(0))
    repeats, sent = Repeats(), Sent(Prompt("ses_1", "msg_1", "x"), post)
    for number in range(MAX_REMEMBERED + 1):
        repeats.cut(Call("laptop", None, f"message {number}"), sent)
    assert await repeats.take(Call("laptop", None, "message 0")) is None
    assert await repeats.take(Call("laptop", "ses_1", "message 1")) is None
    assert await repeats.take(Call("laptop", None, "message 1")) == sent
    assert await repeats.take(Call("laptop", None, "message 1")) is None
    monkeypatch.setattr(repeats_module, "REMEMBERED_FOR", 0.0)
    assert await repeats.take(Call("laptop", None, "message 2")) is None
