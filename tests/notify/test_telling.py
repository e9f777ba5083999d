"""What a person is told, when, and by which of their outlets."""

from __future__ import annotations

import threading
from datetime import time
from typing import TYPE_CHECKING, Any

import pytest

from notify.conftest import NOON
from opencode_journal.entries import MESSAGE, MESSAGE_ANSWERED, TURN_ENDED, TURN_FAILED, TURN_STARTED
from opencode_notify.due import due
from opencode_notify.notice import Receipt
from opencode_notify.rules import NoticeRules, Quiet, load_people
from opencode_notify.sender import LONGEST_PAUSE, MAX_ATTEMPTS, NoticeSender, pause_after
from support.pages.fake_outlet import FakeOutlet

if TYPE_CHECKING:
    from notify.conftest import Told

HOUR = 3600.0


async def test_an_ask_is_told_once_with_its_machine_and_kind_and_nothing_of_its_words(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_1", about="bash rm -rf secrets", title="my work")
    [notice] = await ann.goes_on()
    assert notice["title"] == "laptop-app asks for a shell command"
    assert "secrets" not in str(notice)
    assert "my work" not in str(notice)
    assert await ann.goes_on(HOUR) == []


async def test_what_is_quoted_is_switched_on_and_cleaned(ann: Told) -> None:
    ann.rules(show_title=True, show_command=True)
    ann.fleet.asks("laptop-app", "per_1", about="bash ls \x1b[2J\u202e", title="my work")
    [notice] = await ann.goes_on()
    assert "my work" in notice["body"]
    assert "bash ls \\x1b[2J\\u202e" in notice["body"]


async def test_a_hostile_name_and_kind_cannot_speak(ann: Told) -> None:
    ann.fleet.asks("laptop-\x1b]0;\u202e", "per_1", about="approve-at-https://evil.example now")
    [notice] = await ann.goes_on()
    assert notice["title"] == "laptop-\\x1b]0;\\u202e asks for a permission"
    assert "evil" not in str(notice)


async def test_an_outlet_is_made_beside_the_event_loop_as_its_library_may_take_long_to_load(ann: Told) -> None:
    threads = set()

    def made(settings: dict[str, Any]) -> FakeOutlet:
        threads.add(threading.current_thread())
        return FakeOutlet(ann.file, settings["address"])

    ann.sender = NoticeSender(
        ann.journal, ann.ledger, ann.leader, lambda: load_people(ann.path), made, clock=lambda: ann.now
    )
    ann.fleet.asks("laptop-app", "per_1")
    assert len(await ann.goes_on()) == 1
    assert threading.main_thread() not in threads


async def test_ten_asks_are_two_messages(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_0")
    assert len(await ann.goes_on()) == 1
    ann.fleet.asks("laptop-app", *(f"per_{n}" for n in range(1, 10)))
    assert await ann.goes_on(1) == []
    [group] = await ann.goes_on(30)
    assert group["title"] == "9 asks wait for you"


async def test_what_was_settled_before_it_was_told_is_not_told(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_0")
    await ann.goes_on()
    ann.fleet.asks("laptop-app", "per_1", "per_2")
    await ann.goes_on(1)
    ann.fleet.settles("laptop-app", "per_1")
    [notice] = await ann.goes_on(30)
    assert notice["what"] == "sent"
    assert notice["title"] == "laptop-app asks for a shell command"


async def test_a_settled_ask_is_taken_back_once_and_its_receipt_says_decided(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_1")
    [sent] = await ann.goes_on()
    ann.fleet.settles("laptop-app", "per_1")
    [back] = await ann.goes_on(1)
    assert (back["what"], back["id"]) == ("withdrawn", sent["id"])
    [delivery] = ann.ledger.deliveries(10)
    assert delivery.accepted_at == NOON
    assert delivery.decided_at == NOON + 1
    assert await ann.goes_on(HOUR) == []


async def test_a_group_is_taken_back_when_the_last_of_it_is_settled(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_1", "per_2")
    await ann.goes_on()
    ann.fleet.settles("laptop-app", "per_1")
    assert await ann.goes_on() == []
    ann.fleet.settles("laptop-app", "per_2")
    assert [each["what"] for each in await ann.goes_on()] == ["withdrawn"]


async def test_who_was_not_there_is_told_what_they_missed_and_nothing_twice(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_1")
    await ann.goes_on()
    ann.end()
    ann.fleet.asks("laptop-app", "per_2")
    ann.fleet.journal.append(TURN_FAILED, "desk-api", "ses_9")
    ann.begin()
    [group] = await ann.goes_on(60)
    assert sorted(group["body"].splitlines()) == ["desk-api failed", "laptop-app asks for a shell command"]


async def test_the_past_before_the_first_start_is_nobody_s_but_what_waits_is(ann: Told) -> None:
    ann.fleet.journal.append(TURN_FAILED, "desk-api", "ses_9")
    ann.fleet.asks("laptop-app", "que_1", is_question=True)
    assert [each["title"] for each in await ann.goes_on()] == ["laptop-app has a question"]


async def test_quiet_hours_hold_what_still_waits_at_their_end(ann: Told) -> None:
    ann.rules(quiet={"from": "11:00", "until": "13:00", "zone": "UTC"})
    ann.fleet.asks("laptop-app", "per_1", "per_2")
    assert await ann.goes_on() == []
    assert due(ann.journal, NoticeRules(quiet=Quiet(begins=time(11), ends=time(13), zone="UTC")), NOON) == []
    ann.fleet.settles("laptop-app", "per_2")
    assert await ann.goes_on(HOUR - 1) == []
    assert [each["title"] for each in await ann.goes_on(1)] == ["laptop-app asks for a shell command"]


async def test_a_repeat_waits_for_the_end_of_quiet_hours(ann: Told) -> None:
    ann.answers["phone"] = [Receipt.of_failure("busy", retry=True)]
    ann.rules(quiet={"from": "12:00", "until": "13:00", "zone": "UTC"})
    ann.now -= 1
    ann.fleet.asks("laptop-app", "per_1")
    assert len(await ann.goes_on()) == 1
    assert await ann.goes_on(HOUR / 2) == []
    assert len(await ann.goes_on(HOUR / 2 + 1)) == 1


@pytest.mark.parametrize(
    ("zone", "begins", "ends", "at", "is_quiet"),
    [
        ("UTC", "22:00", "07:00", NOON, False),
        ("UTC", "22:00", "07:00", NOON + 11 * HOUR, True),
        ("UTC", "22:00", "07:00", NOON - 6 * HOUR, True),
        ("Asia/Tokyo", "20:00", "22:00", NOON, True),
        ("Asia/Tokyo", "12:00", "13:00", NOON, False),
    ],
)
def test_quiet_hours_are_the_person_s_own(zone: str, begins: str, ends: str, at: float, is_quiet: bool) -> None:
    quiet = Quiet.model_validate({"from": begins, "until": ends, "zone": zone})
    assert (quiet.end_at(at) is not None) == is_quiet


def test_the_night_when_clocks_change_ends_by_the_clock_on_the_wall() -> None:
    quiet = Quiet.model_validate({"from": "22:00", "until": "07:00", "zone": "Europe/Berlin"})
    before = 1_806_181_200.0  # 2027-03-27 22:00 there; the clocks go forward at 2:00
    assert quiet.end_at(before) == before + 8 * HOUR


async def test_what_nobody_opens_goes_to_the_next_outlet_and_to_each_once(ann: Told) -> None:
    ann.rules("phone", "mail")
    ann.fleet.asks("laptop-app", "per_1")
    assert [each["outlet"] for each in await ann.goes_on()] == ["phone"]
    assert await ann.goes_on(599) == []
    assert [each["outlet"] for each in await ann.goes_on(1)] == ["mail"]
    assert await ann.goes_on(24 * HOUR) == []


async def test_what_was_opened_goes_no_further(ann: Told) -> None:
    ann.rules("phone", "mail")
    ann.fleet.asks("laptop-app", "per_1")
    [notice] = await ann.goes_on()
    assert ann.ledger.saw(notice["id"], None, "opened", ann.now)
    assert not ann.ledger.saw("another", None, "opened", ann.now)
    assert await ann.goes_on(HOUR) == []


async def test_what_fails_is_tried_again_under_the_same_id_later_and_later(ann: Told) -> None:
    ann.answers["phone"] = [Receipt.of_failure("busy", retry=True)] * (MAX_ATTEMPTS + 5)
    ann.fleet.asks("laptop-app", "per_1")
    found = [notice for _ in range(MAX_ATTEMPTS + 3) for notice in await ann.goes_on(LONGEST_PAUSE)]
    assert len(found) == MAX_ATTEMPTS
    assert len({notice["id"] for notice in found}) == 1
    assert [pause_after(n, lambda: 1.0) for n in (1, 2, 3, 20)] == [2, 4, 8, LONGEST_PAUSE]
    assert pause_after(1, lambda: 0.0) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_waits_by_a_clock_that_was_wrong_is_told_once_that_is_set_right(
    ann: Told, *, is_restarted: bool
) -> None:
    ann.rules("phone", "mail")
    ann.answers["phone"] = [Receipt.of_failure("its name is not known now", retry=True)]
    ann.now += 3_650 * 86_400
    ann.fleet.asks("laptop-app", "per_1")
    [first] = await ann.goes_on()
    ann.now -= 3_650 * 86_400
    if is_restarted:
        ann.end()
        ann.begin()
    [again] = await ann.goes_on()
    assert (again["outlet"], again["id"]) == ("phone", first["id"])
    assert [each["outlet"] for each in await ann.goes_on(601)] == ["mail"]


async def test_an_outlet_that_is_gone_is_switched_off_and_the_next_has_its_messages(
    ann: Told, caplog: pytest.LogCaptureFixture
) -> None:
    ann.rules("phone", "mail")
    ann.answers["phone"] = [Receipt.of_failure("the subscription has ended", gone=True)]
    ann.fleet.asks("laptop-app", "per_1")
    assert [each["outlet"] for each in await ann.goes_on()] == ["phone", "mail"]
    assert "outlet phone of ann is switched off: the subscription has ended" in caplog.text
    assert "secret" not in caplog.text
    assert ann.ledger.disabled("ann") == {"phone"}
    ann.fleet.asks("laptop-app", "per_2")
    assert [each["outlet"] for each in await ann.goes_on(60)] == ["mail"]


async def test_a_machine_that_is_lost_while_busy_is_told_and_taken_back(ann: Told) -> None:
    ann.fleet.loses("desk-api", turns=0)
    assert await ann.goes_on() == []
    ann.fleet.loses("desk-api", turns=1)
    assert [each["title"] for each in await ann.goes_on()] == ["desk-api was lost while it worked"]
    ann.fleet.finds("desk-api")
    assert [each["what"] for each in await ann.goes_on()] == ["withdrawn"]


async def test_long_work_is_told_to_be_done_and_short_work_is_not(ann: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    await ann.goes_on()
    journal, now = ann.fleet.journal, [NOON]
    monkeypatch.setattr("opencode_journal.journal.time.time", lambda: now[0])
    journal.append(TURN_STARTED, "laptop-app", "ses_long")
    journal.append(TURN_STARTED, "laptop-app", "ses_short")
    now[0] += 5
    journal.append(TURN_ENDED, "laptop-app", "ses_short")
    assert await ann.goes_on() == []
    now[0] += 300
    journal.append(TURN_ENDED, "laptop-app", "ses_long")
    assert [each["title"] for each in await ann.goes_on()] == ["laptop-app is done"]


async def test_of_a_message_that_waited_one_end_is_told(ann: Told) -> None:
    await ann.goes_on()
    ann.fleet.journal.append(TURN_ENDED, "laptop-app", "ses_1", data={MESSAGE: "m7"})
    ann.fleet.journal.append(MESSAGE_ANSWERED, "laptop-app", "ses_1", data={MESSAGE: "m7"})
    assert [each["title"] for each in await ann.goes_on()] == ["laptop-app is done"]


async def test_events_and_machines_are_the_person_s_to_choose(ann: Told) -> None:
    ann.rules(events=["answer"], machines=["laptop-*"])
    ann.fleet.asks("laptop-app", "per_1")
    ann.fleet.asks("desk-api", "que_1", is_question=True)
    assert await ann.goes_on() == []
    ann.fleet.asks("laptop-app", "que_2", is_question=True)
    assert [each["title"] for each in await ann.goes_on()] == ["laptop-app has a question"]


async def test_while_the_journal_cannot_be_read_nothing_counts_as_settled(ann: Told) -> None:
    ann.fleet.asks("laptop-app", "per_1")
    await ann.goes_on()
    ann.journal._opened.fall_back(OSError(5, "Input/output error"))
    assert await ann.goes_on() == []
    assert [each.state for each in ann.ledger.deliveries(5)] == ["sent"]


async def test_what_is_settled_is_forgotten_after_two_weeks_and_what_waits_is_not(ann: Told) -> None:
    ann.rules(grouping_seconds=0)
    ann.fleet.asks("laptop-app", "per_1", "per_2")
    await ann.goes_on()
    ann.fleet.settles("laptop-app", "per_1")
    await ann.goes_on()
    assert len(ann.ledger.deliveries(5)) == 2
    assert await ann.goes_on(15 * 24 * HOUR) == []
    assert len(ann.ledger.deliveries(5)) == 1
