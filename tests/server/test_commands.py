"""Messages that are commands of the agent: run once, refused by name, and never mistaken for words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.choices import Manner
from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, Refused, Rejected, Unreachable, Unresponsive
from opencode_fleet.sending import AS_IT_IS
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.errors import InstanceError
    from opencode_fleet.model import Outcome, Prompt


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def sent(agent: FakeAgent, message: str, manner: Manner = AS_IT_IS) -> Outcome:
    async with fake_fleet(laptop=agent) as (fleet, _):
        return await Driver(fleet, 30).send(await fleet.find_live("laptop"), message, None, ignored, manner)


@pytest.mark.parametrize(
    ("message", "arguments"), [("/greet Ann  and\nBob ", "Ann  and\nBob"), ("/greet", ""), (" /GREET x", "x")]
)
async def test_a_command_is_run_with_what_follows_its_name_and_its_turn_is_followed(
    message: str, arguments: str
) -> None:
    agent = FakeAgent()
    outcome = await sent(agent, message)
    assert (outcome.result, outcome.text) == ("done", f"echo: greet: {arguments}")
    assert agent.ran == [("greet", arguments)]
    assert not agent.posted


@pytest.mark.parametrize("message", ["a /greet Ann", "/ greet", "//"])
async def test_what_does_not_begin_like_a_command_is_sent_as_it_stands(message: str) -> None:
    agent = FakeAgent()
    assert (await sent(agent, message)).text == f"echo: {message}"
    assert not agent.ran


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("/gret Ann", "has no command 'gret'; nearest: "),
        ("/home/ann/x is broken", "has no command 'home/ann/x'; it has: "),
        ("/compact", "/compact is a command of OpenCode's own screen"),
    ],
)
async def test_a_command_that_is_not_there_is_refused_and_goes_to_no_model(message: str, said: str) -> None:
    agent = FakeAgent()
    with pytest.raises(Refused) as raised:
        await sent(agent, message)
    assert said in str(raised.value)
    assert not agent.ran
    assert not agent.posted


@pytest.mark.parametrize(
    "manner", [Manner("steer"), Manner("queue"), Manner(agent="plan"), Manner(model="fake/small")]
)
async def test_a_command_takes_no_manner(manner: Manner) -> None:
    agent = FakeAgent()
    with pytest.raises(Refused, match="Send it without `when`, `agent`, `model` and `files`; nothing was sent"):
        await sent(agent, "/greet Ann", manner)
    assert not agent.ran


class Troubled(FakeAgent):
    """An agent to which the line breaks when a command is run."""

    def __init__(self, error: InstanceError) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    async def run(self, name: str, prompt: Prompt) -> str:
        del name, prompt
        self.calls += 1
        raise self.error


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Unreachable("the line broke"), "it may run all the same, and is not run again by itself"),
        (Unresponsive("no answer"), "it may run all the same, and is not run again by itself"),
        (BadAnswer("no JSON"), "no JSON. So it is not known whether /greet runs: it may run all the same"),
        (Rejected("it broke off", status=500), "it may run all the same, and is not run again by itself"),
        (Unreachable("nobody listens", refused=True), "nobody listens; nothing was sent"),
    ],
)
async def test_a_command_of_which_no_word_came_is_not_run_again(trouble: InstanceError, said: str) -> None:
    agent = Troubled(trouble)
    with pytest.raises((Unreachable, Unresponsive)) as raised:
        await sent(agent, "/greet Ann")
    assert said in str(raised.value)
    assert agent.calls == 1


class Silent(FakeAgent):
    """An agent that does not tell which message a command became."""

    async def run(self, name: str, prompt: Prompt) -> str:
        await super().run(name, prompt)
        return ""


async def test_a_command_whose_message_is_not_told_runs_and_is_not_followed() -> None:
    agent = Silent()
    outcome = await sent(agent, "/greet Ann")
    assert outcome.result == "running"
    assert "did not tell which message it became" in outcome.note
    assert len(agent.ran) == 1


async def test_a_reason_that_begins_like_a_command_is_sent_as_a_reason() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        (ask,) = asked.asks
        await driver.reply(instance, ask.id, "reject: /greet is not wanted", ignored, lambda _: True)
    assert not agent.ran
    assert agent.posted[-1].text == "/greet is not wanted"


async def test_a_call_that_was_cut_off_and_is_repeated_runs_nothing_twice() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        call = asyncio.create_task(driver.send(instance, "/greet Ann", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy", "its turn")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        again = await driver.send(instance, "/greet Ann", None, ignored)
        assert again.result == "running"
        assert "nothing was sent again" in again.note
        assert len(agent.ran) == 1


async def test_a_command_is_for_one_instance() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        with pytest.raises(Refused, match="a command goes to one instance at a time; nothing was sent"):
            await Driver(fleet, 30).send_to_all([instance], "/greet Ann", None)
        assert not agent.ran
