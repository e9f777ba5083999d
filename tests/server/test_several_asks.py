"""Several asks settled by one call: each decided by itself, and their turns waited for once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.drive import Driver
from opencode_fleet.errors import Refused, Rejected
from opencode_fleet.events import AskOpened
from opencode_fleet.model import Outcome, Question, QuestionItem
from opencode_fleet.settling import Replies
from opencode_mcp.face import Face
from opencode_mcp.tools.reply import reply
from opencode_mcp.views.rows import MAX_TEXT
from opencode_mcp.views.turns import replied as several
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Message, Permission, Prompt


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


def face_of(fleet: Fleet) -> Face:
    driver = Driver(fleet, 30)
    return Face(fleet, driver)


async def asking(driver: Driver, laptop: Instance, *messages: str) -> list[str]:
    """Have a session of its own wait for each of the messages, and return the ids of the asks."""
    return [(await driver.send(laptop, message, "new", Notes().take)).asks[0].id for message in messages]


async def replied(face: Face, **arguments: Any) -> dict[str, Any]:
    """Call `reply`, and return its structured result with the text."""
    answer = await reply(face, Notes().context(), "laptop", **arguments)
    return {**(answer.structured_content or {}), "told": answer.content[0].text}  # type: ignore[union-attr] # a text


async def replied_to(face: Face, **arguments: Any) -> dict[str, Any]:
    """List what waits, as it must be before it is approved, and settle it."""
    await replied(face)
    return await replied(face, **arguments)


def rows(result: dict[str, Any]) -> dict[str, str]:
    return {row["ask"]: row["result"] for row in result["settled"]}


async def test_several_are_settled_and_all_their_turns_are_told() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "ask one", "ask two")
        replies = await driver.reply_to_several(laptop, asks, "once", Notes().take, seen)
    assert [(each.ask_id, each.result, each.says) for each in replies.settled] == [
        (asks[0], "settled", "once"),
        (asks[1], "settled", "once"),
    ]
    assert sorted(each.text for each in replies.outcomes) == ["once, echo: ask one", "once, echo: ask two"]
    assert agent.decisions == [("once", None), ("once", None)]


async def test_one_that_cannot_be_settled_keeps_no_other_from_it() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = face_of(fleet)
        laptop = await fleet.find_live("laptop")
        asks = await asking(face.driver, laptop, "question", "ask two", "ask three")
        elsewhere = agent.open[asks[1]]
        await agent.reply(elsewhere, "reject", None)  # type: ignore[arg-type] # a permission
        await replied(face)
        result = await replied(face, ask=["per_nobody", *asks, asks[2]], answer="always")
    assert rows(result) == {"per_nobody": "elsewhere", asks[0]: "settled", asks[1]: "elsewhere", asks[2]: "settled"}
    assert "it was settled by somebody else (reject)" in result["told"]
    assert agent.decisions == [("reject", None), ("always", None)]
    assert agent.said == [[["always"]]]


async def test_the_first_that_needs_the_person_again_ends_the_wait_for_all() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = face_of(fleet)
        laptop = await fleet.find_live("laptop")
        asks = await asking(face.driver, laptop, "ask one", "ask two")
        again = laptop.state.root_of(agent.open[asks[1]].session_id)
        agent.gate.clear()  # the other turn would never end

        async def goes_on() -> None:
            await eventually_async(lambda: len(agent.decisions) == 2)
            agent.tell(AskOpened(agent.add_ask(again)))

        asked = asyncio.create_task(goes_on())
        async with asyncio.timeout(20):
            result = await replied_to(face, ask=asks, answer="once")
        await asked
        agent.gate.set()
    assert result["result"] == "needs-permission"
    assert [row["session"] for row in result["asks"]] == [again]
    assert "still working; it goes on by itself" in result["told"]


async def test_a_reason_that_is_a_message_is_told_though_another_turn_needs_the_person() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = face_of(fleet)
        laptop = await fleet.find_live("laptop")
        asks = await asking(face.driver, laptop, "ask one", "ask two")
        again = laptop.state.root_of(agent.open[asks[1]].session_id)
        really = agent.reply

        async def and_asks_again(ask: Permission, decision: str, reason: str | None) -> None:
            await really(ask, decision, reason)
            if ask.id == asks[1]:
                agent.tell(AskOpened(agent.add_ask(again)))

        agent.reply = and_asks_again  # type: ignore[method-assign]
        agent.gate.clear()
        replying = asyncio.create_task(replied_to(face, ask=asks, answer="reject: use the other one"))
        await eventually_async(lambda: len(agent.decisions) == 2)
        agent.gate.set()
        await replying
    assert agent.posted[-1].text == "use the other one"


async def test_what_always_released_is_called_that_and_no_error() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "ask one", "ask two", "ask three")
        really = agent.reply

        async def covering(ask: Permission, decision: str, reason: str | None) -> None:
            for other in asks[1:]:
                await really(agent.open[other], "always", None)  # type: ignore[arg-type] # a permission
            agent.decisions.clear()
            await really(ask, decision, reason)

        agent.reply = covering  # type: ignore[method-assign] # OpenCode settles all that it covers
        replies = await driver.reply_to_several(laptop, asks[:2], "always", Notes().take, seen)
        assert [each.result for each in replies.settled] == ["settled", "released"]
        assert len(replies.outcomes) == 2
        late = await driver.reply(laptop, asks[2], "once", Notes().take, seen)
    assert late.result == "done"
    assert "released it too" in late.note
    assert agent.decisions == [("always", None)]


async def test_all_are_those_that_were_listed_whole() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = face_of(fleet)
        laptop = await fleet.find_live("laptop")
        await asking(face.driver, laptop, "ask one", "ask two")
        names = [row["handle"] for row in (await replied(face))["asks"]]
        (unseen,) = await asking(face.driver, laptop, "ask three")
        result = await replied(face, ask="all", answer="once")
        assert rows(result) == dict.fromkeys(names, "settled")
        (left,) = (await replied(face))["asks"]
        assert f"not decided, as they were not listed whole before: {left['handle']}" in result["told"]
        assert left["id"] == unseen
    assert len(agent.decisions) == 2


@pytest.mark.parametrize("answer", ["once", ["once"]])
async def test_an_answer_without_an_ask_says_that_nothing_was_answered(answer: str | list[str]) -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = face_of(fleet)
        asks = await asking(face.driver, await fleet.find_live("laptop"), "ask one")
        result = await replied(face, answer=answer)
        assert result["told"].startswith("Nothing was answered")
        assert [ask["id"] for ask in result["asks"]] == asks
    assert agent.decisions == []


async def test_a_reason_is_no_novel() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        (ask,) = await asking(driver, laptop, "ask one")
        with pytest.raises(Refused, match="at most 1,000 characters; nothing was settled"):
            await driver.reply(laptop, ask, "reject: " + "x" * 1_001, Notes().take, seen)
        assert agent.decisions == []
        await driver.reply_to_several(laptop, [ask], "reject: " + "x" * 1_000, Notes().take, seen)
    assert agent.decisions == [("reject", "x" * 1_000)]
    assert agent.posted[-1].text == "x" * 1_000


async def test_an_answer_to_a_question_that_begins_like_a_rejection_is_no_message() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "question one", "ask two")
        answer = "reject: delete all"
        replies = await driver.reply_to_several(laptop, asks, answer, Notes().take, seen, may_prompt=False)
    assert [each.result for each in replies.settled] == ["settled", "refused"]
    assert "which needs the capability drive" in replies.settled[1].says
    assert agent.said == [[["reject: delete all"]]]
    assert [prompt.text for prompt in agent.posted] == ["question one", "ask two"]


async def test_an_ask_that_was_released_sends_no_reason() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "ask one", "ask two")
        settle, list_messages = agent.reply, agent.messages
        looked, covered = asyncio.Event(), asyncio.Event()

        async def covering(ask: Permission, decision: str, reason: str | None) -> None:
            await settle(agent.open[asks[1]], "always", None)  # type: ignore[arg-type] # a permission
            await settle(ask, decision, reason)

        async def waiting(session_id: str, limit: int, **options: object) -> list[Message]:
            if not looked.is_set():
                looked.set()
                await covered.wait()
            return await list_messages(session_id, limit, **options)

        agent.reply, agent.messages = covering, waiting  # type: ignore[method-assign] # OpenCode settles what it covers
        late = asyncio.create_task(
            driver.reply_to_several(laptop, [asks[1]], "reject: no", Notes().take, seen, may_prompt=False)
        )
        await looked.wait()
        await driver.reply(laptop, asks[0], "always", Notes().take, seen)
        covered.set()
        replies = await late
    assert [each.result for each in replies.settled] == ["released"]
    assert [prompt.text for prompt in agent.posted] == ["ask one", "ask two"]


async def test_what_was_settled_is_told_also_where_the_reason_could_not_be_sent() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "ask one", "ask two", "ask three")

        async def broken(prompt: Prompt) -> None:
            del prompt
            raise Rejected("it takes no messages", status=400)

        agent.prompt = broken  # type: ignore[method-assign]
        replies = await driver.reply_to_several(laptop, asks[:2], "reject: no", Notes().take, seen)
        alone = await driver.reply(laptop, asks[2], "reject: no", Notes().take, seen)
    assert [each.result for each in replies.settled] == ["settled", "settled"]
    for outcome in (*replies.outcomes, alone):
        assert outcome.result == "done"
        assert outcome.note == "the reason was not told to the agent: it takes no messages"


async def test_the_turns_are_looked_up_at_the_same_time() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        asks = await asking(driver, laptop, "ask one", "ask two")
        really, both = agent.messages, asyncio.Barrier(2)
        met = 0

        async def meeting(session_id: str, limit: int, **options: object) -> list[Message]:
            nonlocal met
            if not agent.decisions:
                await both.wait()
                met += 1
            return await really(session_id, limit, **options)

        agent.messages = meeting  # type: ignore[method-assign]
        await driver.reply_to_several(laptop, asks, "once", Notes().take, seen)
    assert met == 2


async def test_the_texts_of_several_turns_share_the_room_of_one() -> None:
    async with fake_fleet(laptop=FakeAgent()) as (fleet, _):
        laptop = await fleet.find_live("laptop")
        ask = Question(id="que_1", session_id="ses_0", items=(QuestionItem(question="Which colour?"),))
        outcomes = [Outcome("done", f"ses_{number}", "x" * 50_000 + f" end {number}") for number in range(8)]
        failed = Outcome("failed", "ses_8", "y" * 50_000, "z" * 5_000)
        waits = [Outcome("needs-answer", "ses_0", "", asks=(ask,))] * 2
        text, result = several(laptop, Replies((), (*outcomes, failed, *waits)), face_of(fleet).shown, "", {})
    assert len(text) < 2 * MAX_TEXT
    assert all(f" end {number}" in text for number in range(8))
    assert text.count("call `reply` with `ask`") == 1
    assert result.asks[0].id == "que_1"


async def test_an_ask_that_is_not_open_is_named_as_the_person_knows_it() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, laptop = Driver(fleet, 30), await fleet.find_live("laptop")
        face = Face(fleet, driver)
        (ask,) = await asking(driver, laptop, "ask one")
        (row,) = (await replied(face))["asks"]
        await replied(face, ask=row["handle"], answer="once")
        for named in (row["handle"], ask):
            with pytest.raises(Refused, match=f"“laptop” does not wait for '{row['handle']}': "):
                await replied(face, ask=named)
        with pytest.raises(Refused, match="does not wait for 'per_0'"):
            await replied(face, ask="per_0")
