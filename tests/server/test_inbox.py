"""What needs the person, over all instances, and the wait for it: nothing is lost, and nothing stale is shown."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.agent import Capability
from opencode_fleet.errors import Refused, Unreachable
from opencode_fleet.events import AskOpened, StatusChanged, TurnFailed
from opencode_fleet.model import Permission, Status
from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from opencode_journal.errors import CursorError
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.reply import reply
from opencode_mcp.tools.wait import wait
from opencode_mcp.views.inbox import MAX_ASKS, MAX_ENDS, MAX_LISTING
from support.fleet.fake_relay import FakeRelay, fake_relay, move, structured, text_of
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from mcp_types import CallToolResult

    from opencode_fleet.model import Runs
    from opencode_mcp.face import Face


async def looked(face: Face, cursor: str | None = None) -> dict[str, Any]:
    return structured(await inbox(face, cursor))


async def recorded(relay: FakeRelay, kind: str, count: int) -> None:
    """Wait until so many entries of a kind are in the journal."""
    await eventually_async(lambda: len(relay.entries(kind)) == count, f"{count} {kind}", within=20)


def are_connected(relay: FakeRelay, count: int) -> bool:
    return sum(instance.connected.is_set() for instance in relay.fleet.all_instances()) == count


def ask_of(session: str, ask_id: str, pattern: str = "ls") -> Permission:
    return Permission(id=ask_id, session_id=session, action="bash", patterns=(pattern,))


def run_turn(agent: FakeAgent, session: str) -> None:
    agent.tell(StatusChanged(session, Status()))
    agent.tell(StatusChanged(session, None))


async def test_asks_of_all_instances_are_listed_oldest_first_and_then_what_ended(tmp_path: Path) -> None:
    laptop, desktop = FakeAgent(), FakeAgent()
    first, second = laptop.add_session("/", "Fix the login").id, desktop.add_session("/").id
    child = desktop.add_session("/", parent_id=second).id
    async with fake_relay(tmp_path, laptop=laptop, desktop=desktop) as relay:
        for name in ("laptop", "desktop"):
            await relay.fleet.find_live(name)
        desktop.tell(AskOpened(ask_of(child, "per_old")))
        await recorded(relay, ASK_OPENED, 1)
        laptop.tell(AskOpened(ask_of(first, "per_new", "npm test")))
        await recorded(relay, ASK_OPENED, 2)
        laptop.tell(StatusChanged(first, None))
        laptop.tell(StatusChanged(first, Status()))
        laptop.tell(AskOpened(ask_of(first, "per_newer", "npm run")))
        await recorded(relay, ASK_OPENED, 3)
        result = await inbox(relay.face)
        found = structured(result)
        assert [(row["instance"], row["id"]) for row in found["asks"]] == [
            ("desktop", "per_old"),
            ("laptop", "per_newer"),
        ]
        # A subagent's ask stands under its root.
        assert found["asks"][0]["session"] == second
        assert [(row["result"], row["session"]) for row in found["ended"]] == [("done", first)]
        head = r"^a\d+ · laptop · s\d+ “Fix the login” · permission, now$"
        assert re.search(head, text_of(result), re.MULTILINE)
        assert "npm run" in text_of(result)


async def test_what_a_cursor_has_told_is_not_told_again_but_what_waits_is(tmp_path: Path) -> None:
    agent = FakeAgent()
    one, other = agent.add_session("/").id, agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        agent.tell(AskOpened(ask_of(other, "per_1")))
        run_turn(agent, one)
        await recorded(relay, TURN_ENDED, 1)
        told = await looked(relay.face)
        again = await looked(relay.face, told["cursor"])
        assert (len(told["ended"]), again["ended"]) == (1, [])
        assert [row["id"] for row in again["asks"]] == ["per_1"]
        run_turn(agent, one)
        await recorded(relay, TURN_ENDED, 2)
        assert len((await looked(relay.face, again["cursor"]))["ended"]) == 1


async def test_an_ask_that_was_left_over_or_settled_is_never_shown(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        before = (await looked(relay.face))["cursor"]
        agent.tell(AskOpened(ask_of(session, "per_1")))
        await recorded(relay, ASK_OPENED, 1)
        agent.tell(StatusChanged(session, None))  # aborted: OpenCode goes on listing the ask
        await recorded(relay, TURN_ENDED, 1)
        assert (await looked(relay.face))["asks"] == []
        news = structured(await wait(relay.face, before, 1))
        assert (news["asks"], len(news["ended"])) == ([], 1)


async def test_an_ask_of_a_machine_that_is_away_is_known_after_a_restart_and_marked(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/", "Fix the login").id
    agent.add_ask(session)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay, ASK_OPENED, 1)
        before = await looked(relay.face)
    async with fake_relay(tmp_path) as relay:
        result = await inbox(relay.face)
        (row,) = structured(result)["asks"]
        assert row == before["asks"][0] | {"away": True}
        assert "its machine is away\nbash ls" in text_of(result)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        assert (await looked(relay.face))["asks"] == before["asks"]


async def test_an_ask_is_settled_by_its_handle(tmp_path: Path) -> None:
    agent = FakeAgent()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        face, context = relay.face, Notes().context()
        instance = await relay.fleet.find_live("laptop")
        await face.driver.send(instance, "ask me", None, Notes().take)
        (row,) = (await looked(face))["asks"]
        settled = structured(await reply(face, context, "laptop", "once", row["handle"]))
        assert (settled["result"], agent.decisions) == ("done", [("once", None)])


async def test_a_long_ask_is_not_shown_whole_and_so_not_approved(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    ask = ask_of(session, "per_1", "echo " + "x" * 2_000 + " end")
    agent.open[ask.id], agent.statuses[session] = ask, Status()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        result = await inbox(relay.face)
        (row,) = structured(result)["asks"]
        assert f"Not shown whole: {row['handle']}." in text_of(result)
        with pytest.raises(Refused, match="nothing is approved unseen"):
            await reply(relay.face, Notes().context(), "laptop", "once", row["handle"])
        shown = text_of(await reply(relay.face, Notes().context(), "laptop", "", row["handle"]))
        assert " end" in shown


async def test_many_asks_and_ends_are_bounded_and_the_rest_is_counted_and_told_later(tmp_path: Path) -> None:
    agent = FakeAgent()
    sessions = [agent.add_session("/", f"Session {number}").id for number in range(90)]
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        before = (await looked(relay.face))["cursor"]
        for number, session in enumerate(sessions):
            agent.tell(AskOpened(ask_of(session, f"per_{number}", "echo " + "y" * 900)))
        await recorded(relay, ASK_OPENED, 90)
        result = await inbox(relay.face, before)
        assert (len(structured(result)["asks"]), structured(result)["left_out"]) == (MAX_ASKS, 90 - MAX_ASKS)
        assert "40 more asks wait (of “laptop” 40); `reply` without `ask` lists those of one" in text_of(result)
        assert len(text_of(result)) < MAX_LISTING + 10_000
        for session in sessions:
            agent.tell(StatusChanged(session, None))
        await recorded(relay, TURN_ENDED, 90)
        first = await looked(relay.face, before)
        assert (len(first["ended"]), first["more"]) == (MAX_ENDS, True)
        rest = await looked(relay.face, first["cursor"])
        assert [row["session"] for row in first["ended"] + rest["ended"]] == sessions
        assert "more" not in rest


@pytest.mark.parametrize("call", [inbox, wait])
async def test_many_old_asks_of_one_machine_hide_none_of_another(
    tmp_path: Path, call: Callable[[Face], Awaitable[CallToolResult]]
) -> None:
    noisy, quiet = FakeAgent(), FakeAgent()
    for _ in range(MAX_ASKS + 10):
        noisy.add_ask(noisy.add_session("/").id)
    async with fake_relay(tmp_path, noisy=noisy, quiet=quiet) as relay:
        await recorded(relay, ASK_OPENED, MAX_ASKS + 10)
        await move(relay, "quiet", "another")
        quiet.tell(AskOpened(ask_of(quiet.add_session("/").id, "per_new")))
        await recorded(relay, ASK_OPENED, MAX_ASKS + 11)
        result = await call(relay.face)
        found = structured(result)
        assert [row["id"] for row in found["asks"] if row["instance"] == "quiet"] == ["per_new"]
        assert (len(found["asks"]), found["left_out"]) == (MAX_ASKS, 11)
        assert "11 more asks wait (of “noisy” 11)" in text_of(result)


async def test_wait_returns_as_soon_as_something_needs_the_person_or_ends(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        waiting = asyncio.create_task(wait(relay.face))
        agent.tell(StatusChanged(session, Status()))
        await eventually_async(relay.told)
        assert not waiting.done()
        agent.tell(AskOpened(ask_of(session, "per_1")))
        told = structured(await waiting)
        assert [row["id"] for row in told["asks"]] == ["per_1"]
        waiting = asyncio.create_task(wait(relay.face, told["cursor"]))
        agent.tell(TurnFailed(session, "no credit"))
        agent.tell(StatusChanged(session, None))
        told = structured(await waiting)
        assert [(row["result"], row["problem"]) for row in told["ended"]] == [("failed", "no credit")]


async def test_without_a_cursor_wait_answers_at_once_if_something_waits_already(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_ask(agent.add_session("/").id)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        assert len(structured(await wait(relay.face))["asks"]) == 1


async def test_what_happens_between_two_waits_is_told_by_the_second_once(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        cursor = (await looked(relay.face))["cursor"]
        told = 0
        for number in range(1, 31):
            run_turn(agent, session)
            if number % 3 == 0:
                await recorded(relay, TURN_ENDED, number)
                news = structured(await wait(relay.face, cursor, 1))
                cursor, told = news["cursor"], told + len(news["ended"])
        assert told == 30


async def test_a_wait_that_ends_without_news_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.statuses[agent.add_session("/").id] = Status()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        result = await wait(relay.face, None, 1)
        assert "within 1 s; 1 busy. `wait` again with the cursor." in text_of(result)
        assert structured(result)["cursor"] == str(relay.journal.cursor())


async def test_a_wait_ends_before_the_calls_of_its_caller_do(tmp_path: Path) -> None:
    async with fake_relay(tmp_path, laptop=FakeAgent()) as relay:
        relay.face.call_seconds = 0.0
        async with asyncio.timeout(20):
            assert structured(await wait(relay.face, None, 40))["asks"] == []


async def test_a_wait_for_some_instances_loses_nothing_of_the_others(tmp_path: Path) -> None:
    laptop, desktop = FakeAgent(), FakeAgent()
    near, far = laptop.add_session("/").id, desktop.add_session("/").id
    async with fake_relay(tmp_path, laptop=laptop, desktop=desktop) as relay:
        for name in ("laptop", "desktop"):
            await relay.fleet.find_live(name)
        start = (await looked(relay.face))["cursor"]
        run_turn(desktop, far)
        run_turn(laptop, near)
        await recorded(relay, TURN_ENDED, 2)
        narrow = structured(await wait(relay.face, start, 1, ["laptop"]))
        assert [row["instance"] for row in narrow["ended"]] == ["laptop"]
        # The same wait goes on behind it; any other, and the inbox, still tells what this one did not.
        assert structured(await wait(relay.face, narrow["cursor"], 1, ["laptop"]))["ended"] == []
        for other in (
            await looked(relay.face, narrow["cursor"]),
            structured(await wait(relay.face, narrow["cursor"])),
        ):
            assert {row["instance"] for row in other["ended"]} == {"laptop", "desktop"}
        told = structured(await wait(relay.face, narrow["cursor"], 1, ["desktop"]))
        assert [row["instance"] for row in told["ended"]] == ["desktop"]


@pytest.mark.parametrize(
    ("cursor", "said"),
    [
        ("yesterday", "this is no cursor"),
        ("222222.1", "another journal.*begin anew without it"),
        ("222222.1+5-zzzzzz", "this is no cursor"),
    ],
)
async def test_a_cursor_that_means_nothing_here_is_refused_with_what_to_do(
    tmp_path: Path, cursor: str, said: str
) -> None:
    async with fake_relay(tmp_path, laptop=FakeAgent()) as relay:
        for call in (inbox(relay.face, cursor), wait(relay.face, cursor, 1)):
            with pytest.raises(CursorError, match=said):
                await call


async def test_a_cursor_that_is_too_old_is_refused_with_what_to_do(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        old = (await looked(relay.face))["cursor"]
        run_turn(agent, session)
        await recorded(relay, TURN_ENDED, 1)
        relay.journal.prune(relay.entries()[-1].at + 15 * 86_400)
        with pytest.raises(CursorError, match=r"is older: begin anew without it"):
            await inbox(relay.face, old)


async def test_two_copies_on_one_directory_tell_the_same_and_give_the_same_handles(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with AsyncExitStack() as stack:
        copies = [await stack.enter_async_context(fake_relay(tmp_path, laptop=agent)) for _ in range(2)]
        for copy in copies:
            await copy.fleet.find_live("laptop")
        cursor = (await looked(copies[0].face))["cursor"]
        waits = [asyncio.create_task(wait(copy.face, cursor)) for copy in copies]
        agent.tell(AskOpened(ask_of(session, "per_1")))
        told = [structured(await each) for each in waits]
        assert told[0]["asks"] == told[1]["asks"]
        assert [row["id"] for row in told[0]["asks"]] == ["per_1"]


async def test_what_only_another_copy_saw_is_asked_for_and_told_of_a_silent_machine_too(tmp_path: Path) -> None:
    agent, blind = FakeAgent(), FakeAgent()
    session = agent.add_session("/").id
    blind.made, blind.statuses, blind.open = agent.made, agent.statuses, agent.open
    async with fake_relay(tmp_path, laptop=agent) as first, fake_relay(tmp_path, laptop=blind) as second:
        for copy in (first, second):
            await copy.fleet.find_live("laptop")
        # No event of it reaches the second copy.
        agent.tell(AskOpened(agent.add_ask(session)))
        await recorded(first, ASK_OPENED, 1)
        blind.trouble = Unreachable("no answer")
        silent = await inbox(second.face)
        assert "its machine does not answer just now\nbash ls" in text_of(silent)
        blind.trouble = None
        answering = await inbox(second.face)
        assert structured(silent)["asks"] == structured(answering)["asks"] != []
        assert "does not answer" not in text_of(answering)


async def test_the_directories_of_one_agent_are_caught_up_with_by_one_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("/a", "/b", "/c")
    agent, blind = (FakeAgent(*places, can=frozenset({Capability.DIRECTORIES})) for _ in range(2))
    sessions = [agent.add_session(place).id for place in places]
    blind.made, blind.statuses, blind.open = agent.made, agent.statuses, agent.open
    async with fake_relay(tmp_path, laptop=agent) as first, fake_relay(tmp_path, laptop=blind) as second:
        for copy in (first, second):
            await eventually_async(partial(are_connected, copy, len(places)))
        for session in sessions:
            agent.tell(AskOpened(agent.add_ask(session)))
        await recorded(first, ASK_OPENED, len(places))
        questions = []
        runs = blind.runs

        async def counted() -> Runs:
            questions.append(1)
            return await runs()

        monkeypatch.setattr(blind, "runs", counted)
        assert len((await looked(second.face))["asks"]) == len(places)
        assert len(questions) == 1
