"""With what and when a message is sent: agent and model, a session by its title, into or after a running turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import choices as choices_module
from opencode_fleet import turn as turn_module
from opencode_fleet.agent import Capability
from opencode_fleet.choices import Manner
from opencode_fleet.drive import Driver
from opencode_fleet.errors import Refused
from opencode_fleet.sending import AS_IT_IS
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Outcome

QUEUES = frozenset({Capability.QUEUES, Capability.WAKES})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once where a person would be left to wait for seconds."""
    for name in ("LOOK_INTERVAL", "SETTLING", "WAKE_AFTER"):
        monkeypatch.setattr(turn_module, name, 0.1)


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def sent(agent: FakeAgent, manner: Manner, wanted: str | None = None) -> Outcome:
    async with fake_fleet(laptop=agent) as (fleet, _):
        return await Driver(fleet, 30).send(await fleet.find_live("laptop"), "hello", wanted, ignored, manner)


async def refused(agent: FakeAgent, manner: Manner = AS_IT_IS, wanted: str | None = None) -> str:
    """Return why a message is refused, after checking that nothing was done."""
    with pytest.raises(Refused) as raised:
        await sent(agent, manner, wanted)
    assert not agent.posted
    assert not agent.switched
    return str(raised.value)


# -- agent and model -------------------------------------------------------------------------------------------------


async def test_an_agent_and_a_model_are_switched_to_before_the_message_and_named_by_it() -> None:
    agent = FakeAgent()
    session = agent.add_session("/")
    outcome = await sent(agent, Manner(agent="PLAN", model="fake/small"))
    assert (outcome.result, outcome.when) == ("done", "now")
    assert agent.switched == [(session.id, "plan", "fake/small")]
    (prompt,) = agent.posted
    assert (prompt.agent, prompt.model, prompt.variant) == ("plan", "fake/small", "")


class Switching(FakeAgent):
    """An agent that holds a switch up."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """See `Agent.switch`."""
        await super().switch(session_id, agent, model)
        await self.held.wait()


async def test_nobody_else_comes_between_the_switch_and_its_message() -> None:
    agent = Switching()
    agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = asyncio.create_task(driver.send(instance, "hello", None, ignored, Manner(agent="plan")))
        await eventually_async(lambda: agent.switched, "the switch")
        for manner in (AS_IT_IS, Manner(agent="build")):
            with pytest.raises(Refused, match="nothing was sent"):
                await driver.send(instance, "between", None, ignored, manner)
        agent.held.set()
        assert (await first).text == "echo: hello"
        assert len(agent.switched) == len(agent.posted) == 1


async def test_what_began_at_the_machine_during_the_switch_is_not_joined() -> None:
    agent = Switching()
    session = agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        sending = asyncio.create_task(driver.send(instance, "hello", None, ignored, Manner(agent="plan")))
        await eventually_async(lambda: agent.switched, "the switch")
        agent.tell_busy(session.id, "at the desk")
        await eventually_async(lambda: instance.state_name() == "busy", "its turn")
        agent.held.set()
        with pytest.raises(Refused, match="nothing was sent"):
            await sending
        assert not agent.posted
        assert not instance.posting


async def test_without_them_nothing_is_switched() -> None:
    agent = FakeAgent()
    await sent(agent, AS_IT_IS)
    assert not agent.switched


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        (Manner(agent="plam"), ["has no agent 'plam'; nearest: ", "plan"]),
        (Manner(model="small"), ["has no model 'small'; nearest: ", "fake/small"]),
        (Manner(model="x"), ["has no model 'x'; it has: ", "fake/large, fake/small"]),
    ],
)
async def test_one_that_is_not_offered_is_refused_with_those_that_are(manner: Manner, said: list[str]) -> None:
    why = await refused(FakeAgent("/"), manner)
    assert all(words in why for words in said)
    assert why.endswith("Nothing was sent")


class Late(FakeAgent):
    """An agent that knows what it offers only when it has been asked a few times."""

    def __init__(self, can: frozenset[Capability] = frozenset()) -> None:
        super().__init__(can=can)
        self.coming = [[], ["build"], ["build", "plan"]]

    async def agents(self, directory: str) -> list[str]:
        del directory
        return self.coming.pop(0)


async def test_an_agent_that_reads_its_configuration_late_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "LOOKS_APART", 0.0)
    agent = Late(can=frozenset({Capability.SETTLES}))
    assert (await sent(agent, Manner(agent="plan"))).result == "done"
    assert not agent.coming


async def test_one_that_knows_all_at_once_is_asked_once() -> None:
    agent = Late()
    await refused(agent, Manner(agent="plan"))
    assert len(agent.coming) == 2


async def test_what_a_hostile_machine_offers_is_listed_within_bounds() -> None:
    agent = FakeAgent("/")
    agent.offers["agents"] = [f"{number}\x1b" * 1000 for number in range(1000)]
    why = await refused(agent, Manner(agent="zzzz"))
    assert len(why) < 1500
    assert "\x1b" not in why
    assert "and 988 more" in why


# -- which session ---------------------------------------------------------------------------------------------------


def titled(*titles: str) -> FakeAgent:
    """Return an agent with sessions of these titles, the last one the newest."""
    agent = FakeAgent()
    for title in titles:
        agent.add_session("/", title)
    return agent


@pytest.mark.parametrize("wanted", ["auth", "AUTH flow", "flow the", "the auth"])
async def test_a_session_is_found_by_words_of_its_title(wanted: str) -> None:
    agent = titled("Mend the auth flow", "Something else")
    outcome = await sent(agent, AS_IT_IS, wanted)
    assert agent.made[outcome.session_id].title == "Mend the auth flow"


async def test_a_title_of_just_these_words_comes_before_longer_ones() -> None:
    agent = titled("Tests", "Tests of the login", "More tests")
    outcome = await sent(agent, AS_IT_IS, "tests")
    assert agent.made[outcome.session_id].title == "Tests"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("tests", "'tests' fits several sessions of "),
        ("nothing like it", "'nothing like it' is in no session's title of "),
    ],
)
async def test_words_that_fit_several_or_none_are_refused_with_the_candidates(wanted: str, said: str) -> None:
    agent = titled("Tests of the login", "Tests of the line")
    why = await refused(agent, wanted=wanted)
    assert said in why
    for session in agent.made.values():
        assert session.id in why
        assert session.title in why
    assert " d old" in why


@pytest.mark.parametrize("wanted", ["a", "s12", "New", "of  a"])
async def test_too_few_characters_are_no_words(wanted: str) -> None:
    assert "at least 4 characters" in await refused(titled("as of s12 New"), wanted=wanted)


# -- when ------------------------------------------------------------------------------------------------------------


async def begin(driver: Driver, instance: Instance, agent: FakeAgent) -> asyncio.Task[Outcome]:
    """Begin a turn, which the gate holds up; what is posted after it is only accepted."""
    agent.gate.clear()
    turn = asyncio.create_task(driver.send(instance, "first", None, ignored))
    await eventually_async(lambda: instance.state_name() == "busy", "its turn")
    agent.takes_in = False
    agent.queues = True
    return turn


async def test_a_message_is_steered_into_the_turn_that_runs_and_answered() -> None:
    agent = FakeAgent(can=QUEUES)
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = await begin(driver, instance, agent)
        steered = asyncio.create_task(driver.send(instance, "second", None, ignored, Manner("steer")))
        await eventually_async(lambda: len(agent.posted) == 2, "the second message")
        assert agent.posted[1].delivery == "steer"
        assert agent.posted[1].session_id == agent.posted[0].session_id
        assert not steered.done()
        agent.gate.set()
        await first
        # It lies unread in the idle session, as after a restart, and is posted again under its own id.
        outcome = await steered
        assert (outcome.result, outcome.when, outcome.text) == ("done", "steer", "echo: second")
        assert len({prompt.id for prompt in agent.posted}) == 2


async def test_a_message_is_queued_behind_the_turn_that_runs_and_not_waited_for() -> None:
    agent = FakeAgent(can=QUEUES)
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = await begin(driver, instance, agent)
        for message in ("second", "third"):
            outcome = await driver.send(instance, message, None, ignored, Manner("queue"))
            assert (outcome.result, outcome.when) == ("queued", "queue")
            await eventually_async(lambda: not instance.posting, "the end of the post")
        assert [prompt.delivery for prompt in agent.posted] == ["steer", "queue", "queue"]
        agent.gate.set()
        assert (await first).text == "echo: first"


async def test_where_the_agent_keeps_no_message_it_is_not_queued() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = await begin(driver, instance, agent)
        with pytest.raises(Refused, match="would join that turn at its next step; nothing was sent"):
            await driver.send(instance, "second", None, ignored, Manner("queue"))
        agent.gate.set()
        await first
        assert len(agent.posted) == 1


@pytest.mark.parametrize("when", ["steer", "queue"])
async def test_a_running_turn_keeps_its_agent_and_model(when: str) -> None:
    agent = FakeAgent(can=QUEUES)
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = await begin(driver, instance, agent)
        with pytest.raises(Refused, match="a running turn keeps its agent and model; nothing was sent"):
            await driver.send(instance, "x", None, ignored, Manner(when, agent="plan"))  # type: ignore[arg-type]
        agent.gate.set()
        await first
        assert not agent.switched
        assert len(agent.posted) == 1


@pytest.mark.parametrize("manner", [Manner("steer"), Manner("queue")])
async def test_where_nothing_runs_it_begins_at_once_and_says_so(manner: Manner) -> None:
    agent = FakeAgent()
    outcome = await sent(agent, manner)
    assert (outcome.result, outcome.when, outcome.note) == ("done", "now", "nothing ran there, so it began at once")
    assert agent.posted[0].delivery == "steer"


async def test_a_refusal_of_a_busy_session_names_the_way_into_its_turn() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        first = await begin(driver, instance, agent)
        with pytest.raises(Refused, match="send it into the running turn with when='steer'"):
            await driver.send(instance, "second", None, ignored)
        agent.gate.set()
        await first
