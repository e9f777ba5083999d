"""The wait for news while much has happened, or goes on happening: others go on with their work, and it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet import inbox as inbox_module
from opencode_journal.cursor import Cursor
from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from opencode_journal.errors import CursorError
from opencode_mcp.tools import wait as wait_module
from opencode_mcp.tools.wait import wait
from support.fleet.fake_relay import fake_relay, move, structured, text_of
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.inbox import News


async def test_a_long_past_is_looked_through_in_parts_that_let_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "BATCH", 10)
    async with fake_relay(tmp_path) as relay:
        start = relay.journal.cursor()
        settled = [relay.journal.append(ASK_OPENED, "laptop", "ses_1", f"per_{number}") for number in range(200)]
        end = relay.journal.append(TURN_ENDED, "laptop", "ses_1")
        reads: list[str] = []
        state = relay.journal.state

        def counted(key: str) -> object:
            reads.append(key)
            return state(key)

        monkeypatch.setattr(relay.journal, "state", counted)
        turns = 0

        async def work() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(work())
        try:
            news = await relay.face.inbox.news(start, 50)
        finally:
            others.cancel()
        assert (news.asks, news.ends, news.is_all) == ([], [end], True)
        assert turns >= len(settled) / 10
        assert len(reads) <= 2 * len(settled) / 10, "what is open is read once for many entries"


async def test_what_is_looked_through_ends_with_the_time_for_it_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "BATCH", 10)
    async with fake_relay(tmp_path) as relay:
        relay.face.call_seconds = 0.0
        start = relay.journal.cursor()
        for number in range(20):
            relay.journal.append(ASK_OPENED, "laptop", "ses_1", f"per_{number}")
        end = relay.journal.append(TURN_ENDED, "laptop", "ses_1")
        for seq in (10, 20):
            result = await wait(relay.face, str(start))
            start = Cursor.parse(structured(result)["cursor"])
            assert (structured(result)["ended"], start.seq) == ([], seq)
            assert "it is not looked through yet: `wait` again with the new one" in text_of(result)
        found = structured(await wait(relay.face, str(start)))
        assert ([row["at"] for row in found["ended"]], found["cursor"]) == ([end.at], str(relay.journal.cursor()))


async def test_a_wait_ends_though_what_happens_comes_faster_than_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_relay(tmp_path) as relay:
        relay.face.call_seconds = 0.0
        news = relay.face.inbox.news

        async def while_more_comes(*args: Any, **options: Any) -> News:
            found = await news(*args, **options)
            relay.journal.append(ASK_OPENED, "laptop", "ses_1", "per_1")
            return found

        monkeypatch.setattr(relay.face.inbox, "news", while_more_comes)
        async with asyncio.timeout(20):
            assert structured(await wait(relay.face))["asks"] == []


async def test_what_a_first_answer_has_no_room_for_the_next_ones_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_module, "MAX_ASKS", 20)
    noisy, quiet = FakeAgent(), FakeAgent()
    many = 50
    old = [noisy.add_ask(noisy.add_session("/").id).id for _ in range(many)]
    young = quiet.add_ask(quiet.add_session("/").id).id
    async with fake_relay(tmp_path, noisy=noisy, quiet=quiet) as relay:
        await move(relay, "quiet", "another")
        await eventually_async(lambda: len(relay.entries(ASK_OPENED)) == many + 1)
        result = await wait(relay.face)
        told = [row["id"] for row in structured(result)["asks"]]
        assert (len(told), structured(result)["left_out"]) == (20, 31)
        assert young in told
        assert "31 more asks wait (of “noisy” 31); `wait` with the cursor lists them" in text_of(result)
        # What is settled meanwhile moves none of the others out of sight.
        for settled in told[:10]:
            for agent in (noisy, quiet):
                if settled in agent.open:
                    await agent.reply(agent.open[settled], "once", None)  # type: ignore[arg-type] # a permission
        seen = set(told)
        for _ in range(2):
            result = await wait(relay.face, structured(result)["cursor"])
            seen |= {row["id"] for row in structured(result)["asks"]}
        assert seen == {*old, young}
        assert "left_out" not in structured(result)
        relay.face.call_seconds = 0.0
        after = structured(await wait(relay.face, structured(result)["cursor"]))
        assert after["asks"] == []
        assert "~" not in after["cursor"]


async def test_a_cursor_for_the_rest_from_another_journal_is_told_so(tmp_path: Path) -> None:
    async with fake_relay(tmp_path) as relay:
        with pytest.raises(CursorError):
            await wait(relay.face, "k7m2xp.4~1795575845000000-0123ab")
