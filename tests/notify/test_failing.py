"""An outlet that fails is seen: by the owner in `doctor` and `status`, and by its person, alone, in `inbox`."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from notify.conftest import NOON
from opencode_fleet.drive import Driver
from opencode_gateway.examination import people_are_told
from opencode_journal.journal import Journal
from opencode_mcp.caller import Caller
from opencode_mcp.face import Face
from opencode_mcp.tools.inbox import inbox
from opencode_notify.failing import failing, in_words, said_to
from opencode_notify.notice import Receipt
from opencode_notify.tables import DIRECTORY, FILE_NAME
from support.fleet.fake_relay import structured, text_of
from support.opencodes.fake_agent import FakeAgent, fake_fleet

if TYPE_CHECKING:
    from pathlib import Path

    from notify.conftest import Told

AWAY = Receipt.of_failure("the server is away", retry=True)
SAID = "outlet phone of ann fails since 2027-01-15 12:00 UTC: the server is away"


@pytest.fixture
async def failed(ann: Told) -> Told:
    """Her phone does not take what it is sent."""
    ann.answers["phone"] = [AWAY, AWAY]
    ann.fleet.asks("laptop-app", "per_1")
    await ann.goes_on()
    await ann.goes_on(60)
    return ann


async def test_an_outlet_fails_since_the_first_time_and_until_it_takes_something(failed: Told) -> None:
    [state] = failing(failed.directory)
    assert (state.failing_since, state.failed_at) == (NOON, NOON + 60)
    assert in_words(state) == SAID
    await failed.goes_on(600)
    assert failing(failed.directory) == []


async def test_the_inbox_tells_it_to_its_person_alone(failed: Told, tmp_path: Path) -> None:
    async with fake_fleet(laptop=FakeAgent()) as (fleet, _):
        journal = Journal(tmp_path / "other")
        face = Face(fleet, Driver(fleet, 30), journal, failing=partial(said_to, failed.directory))
        told = await inbox(face.of(Caller("ann", frozenset({"observe"}))))
        assert structured(told)["problem"] == SAID
        assert f"Note: {SAID}." in text_of(told)
        assert "phone" not in text_of(await inbox(face.of(Caller("ben", frozenset({"observe"})))))
        journal.close()


async def test_an_outlet_that_is_in_no_list_any_more_fails_no_more(failed: Told) -> None:
    failed.rules("mail")
    await failed.goes_on(60)
    assert failing(failed.directory) == []
    assert {each.outlet: each.state for each in failed.ledger.deliveries(9)} == {"phone": "failed", "mail": "sent"}


async def test_so_it_is_with_one_that_nothing_waits_for(failed: Told) -> None:
    failed.fleet.settles("laptop-app", "per_1")
    await failed.goes_on()
    assert len(failing(failed.directory)) == 1
    failed.rules("mail")
    await failed.goes_on()
    assert failing(failed.directory) == []


async def test_doctor_names_what_fails_and_what_helps(failed: Told) -> None:
    [finding] = people_are_told(failed.path, failed.directory)
    assert (finding.state, finding.text) == ("fault", SAID)
    assert "notify test ann phone" in finding.remedy
    await failed.goes_on(600)
    [finding] = people_are_told(failed.path, failed.directory)
    assert (finding.state, finding.text) == ("ok", "1 outlet, and none fails")


def test_doctor_says_that_nobody_is_told(ann: Told) -> None:
    assert people_are_told(ann.path, None)[0].text == "1 outlet; no journal is known here"
    ann.path.unlink()
    assert people_are_told(ann.path, ann.directory)[0].text == "nobody is told what needs them"


@pytest.mark.parametrize("content", ["no JSON", json.dumps({"ann": {"rules": {"events": ["all"]}}})])
def test_doctor_says_what_is_wrong_with_the_file(ann: Told, content: str) -> None:
    ann.path.write_text(content)
    [finding] = people_are_told(ann.path, ann.directory)
    assert finding.state == "fault"
    assert str(ann.path) in finding.text


def test_a_ledger_that_cannot_be_read_hides_no_inbox(ann: Told, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    (damaged / DIRECTORY).mkdir(parents=True)
    (damaged / DIRECTORY / FILE_NAME).write_bytes(b"no database" * 1000)
    assert said_to(damaged, "ann") == ""
    assert people_are_told(ann.path, damaged)[0].state == "fault"
