"""Files that go with messages for instances that are away: kept whole, bounded, and gone with their message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_common import database
from opencode_fleet import room as room_module
from opencode_fleet.errors import Refused
from opencode_fleet.files import File
from opencode_fleet.later import Kept
from opencode_fleet.model import Outcome
from opencode_journal.entries import MESSAGE_ANSWERED, MESSAGE_DELIVERED, MESSAGE_EXPIRED, MESSAGE_FAILED
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.views.messages import kept as kept_text
from support.fleet.asleep import away, come_back, kept, leave, look_at_once, recorded, sent
from support.fleet.fake_relay import fake_copy, fake_relay, structured, text_of
from support.fleet.full_disk import fill
from support.fleet.pictures import png
from support.opencodes.fake_agent import FakeAgent

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from support.fleet.fake_relay import FakeRelay

TEXT = File("notes.md", "text/plain", b"hi")
DAY = 86_400


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nobody to wait for seconds."""
    look_at_once(monkeypatch)


def large(size: int = 500_000) -> File:
    return File("shot.png", "image/png", png(noise=bytes(size)))


def left(relay: FakeRelay) -> list[str]:
    """Return under which keys the journal keeps anything."""
    return relay.journal.state_keys("kept/")


async def test_they_go_with_their_message_whole_and_in_order_and_are_gone_once_it_is_delivered(
    tmp_path: Path,
) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    agent.gate.clear()
    async with away(tmp_path, agent) as relay:
        result = await sent(relay, "look", large(), TEXT, TEXT)
        assert isinstance(result, Kept)
        assert f"kept as {result.message.handle} with its 3 files and sent" in kept_text(result)[0]
        listed = await inbox(relay.face)
        assert "“look” with shot.png, notes.md, notes.md" in text_of(listed)
        assert structured(listed)["messages"][0]["files"] == ["shot.png", "notes.md", "notes.md"]
    # Another copy of the server has them, too.
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay, MESSAGE_DELIVERED)
        assert agent.posted[0].files == (large(), TEXT, TEXT)
        assert not any("file" in key for key in left(relay))
        agent.gate.set()
        await recorded(relay, MESSAGE_ANSWERED)
        assert not left(relay)
    assert len(agent.posted) == 1


async def test_one_that_is_there_and_idle_gets_them_at_once(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        assert isinstance(await sent(relay, "look", TEXT), Outcome)
        assert agent.posted[0].files == (TEXT,)
        assert not left(relay)


async def test_they_are_gone_with_a_message_that_is_cancelled_or_fails_or_expires(tmp_path: Path) -> None:
    agent = FakeAgent()
    clock = [1_000_000_000.0]
    async with fake_copy(tmp_path, {"laptop": agent}, now=lambda: clock[0]) as relay:
        await relay.fleet.find_live("laptop")
        await leave(relay)
        handle = await kept(relay, "never mind", TEXT)
        relay.outbox.cancel(handle, "", "ann")
        assert not left(relay)
        await kept(relay, "look", TEXT, session="ses_gone")
        come_back(relay)
        await recorded(relay, MESSAGE_FAILED)
        assert not left(relay)
        await leave(relay)
        await kept(relay, "look", large())
        clock[0] += 14 * DAY
        await recorded(relay, MESSAGE_EXPIRED)
        assert not left(relay)


async def test_the_same_words_with_another_file_are_another_message(tmp_path: Path) -> None:
    async with away(tmp_path, FakeAgent()) as relay:
        first = await kept(relay, "look", TEXT)
        assert await kept(relay, "look", TEXT) == first
        others = [
            await kept(relay, "look"),
            await kept(relay, "look", File("notes.md", "text/plain", b"ho")),
            await kept(relay, "look", File("other.md", "text/plain", b"hi")),
        ]
        assert len({first, *others}) == 4


async def test_there_is_room_for_so_much_of_a_person_and_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_module, "MAX_FILES_OF_PERSON", 1_000_000)
    monkeypatch.setattr(room_module, "MAX_FILES", 1_500_000)
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        await kept(relay, "look", large(900_000))
        with pytest.raises(Refused, match=r"files of yours of 0\.9 MB wait, these are 0\.2 MB, .* room for 1\.0 MB"):
            await sent(relay, "more", large(200_000))
        await kept(relay, "without")
        await kept(relay, "mine", large(400_000), by="ben")
        with pytest.raises(Refused, match=r"files of 1\.3 MB wait.* Nothing was kept and nothing sent"):
            await sent(relay, "more of mine", large(400_000), by="ben")
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED, 3)
        await leave(relay)
        await kept(relay, "again there is room", large(900_000))


async def test_nothing_is_accepted_whose_files_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(path: Path | str, patience: float) -> sqlite3.Connection:
        connection = database.connect(path, patience)
        connection.execute("PRAGMA max_page_count = 200")
        return connection

    monkeypatch.setattr("opencode_journal.opening.connect", connect)
    async with away(tmp_path, FakeAgent()) as relay:
        with pytest.raises(Refused, match=r"nothing was kept and nothing sent: .*make room on its disk"):
            await sent(relay, "look", TEXT, large(2_000_000))
        assert not left(relay)
        await kept(relay, "look", TEXT)
        fill(relay.journal)
        with pytest.raises(Refused, match=r"nothing was kept and nothing sent"):
            await sent(relay, "look again", large(20_000))
        assert len(relay.outbox.messages()) == 1


async def test_a_message_whose_files_are_damaged_fails_and_is_not_sent_without_them(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        await kept(relay, "look", large())
        key = next(key for key in left(relay) if "file" in key)
        relay.journal.together(lambda: relay.journal.set_state(key, None), durable=True)
        come_back(relay)
        (failed,) = await recorded(relay, MESSAGE_FAILED)
        assert "are not in the journal any more; nothing was sent" in failed.data["problem"]
        assert not agent.posted
        assert not left(relay)
