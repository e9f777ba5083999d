"""What a page says of a message: whose it is, what of it still waits, and that it was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_notify.receipts import Receipts
from opencode_notify.rules import load_people

if TYPE_CHECKING:
    from notify.conftest import Told


@pytest.fixture
def receipts(ann: Told) -> Receipts:
    """Those of ann's messages."""
    return Receipts(ann.journal, ann.ledger, lambda: load_people(ann.path), lambda: ann.now)


async def test_a_message_leads_to_those_of_its_asks_that_still_wait(ann: Told, receipts: Receipts) -> None:
    ann.rules(quiet={"from": "11:00", "until": "12:30", "zone": "UTC"})
    ann.fleet.asks("laptop-app", "per_1", "per_2")
    ann.fleet.loses("desk-api", turns=1)
    await ann.goes_on()
    [notice] = await ann.goes_on(1_800)
    assert sorted(receipts.opened("ann", notice["id"])) == [("laptop-app", "per_1"), ("laptop-app", "per_2")]
    ann.fleet.settles("laptop-app", "per_1")
    assert receipts.opened("ann", notice["id"]) == [("laptop-app", "per_2")]
    ann.fleet.settles("laptop-app", "per_2")
    assert receipts.opened("ann", notice["id"]) == []


async def test_a_message_of_one_ask_leads_to_it_when_it_is_settled_too(ann: Told, receipts: Receipts) -> None:
    ann.fleet.asks("laptop-app", "per_1")
    [notice] = await ann.goes_on()
    ann.fleet.settles("laptop-app", "per_1")
    await ann.goes_on()
    assert receipts.opened("ann", notice["id"]) == [("laptop-app", "per_1")]


async def test_what_was_opened_goes_to_no_further_outlet_and_only_its_person_opens_it(
    ann: Told, receipts: Receipts
) -> None:
    ann.rules("phone", "mail")
    ann.fleet.asks("laptop-app", "per_1")
    ann.fleet.asks("desk-api", "per_2")
    [notice] = await ann.goes_on()
    assert receipts.opened("ben", notice["id"]) == []
    assert receipts.opened("ann", "0" * 20) == []
    assert [each.opened_at for each in ann.ledger.deliveries(1)] == [None]
    receipts.opened("ann", notice["id"])
    assert [each.opened_at for each in ann.ledger.deliveries(1)] == [ann.now]
    assert await ann.goes_on(600) == []


async def test_shown_is_noted_of_browsers_alone_and_stops_nothing(ann: Told, receipts: Receipts) -> None:
    ann.rules("phone", "mail")
    ann.path.write_text(ann.path.read_text().replace('"kind": "fake"', '"kind": "web_push"', 1))
    ann.fleet.asks("laptop-app", "per_1")
    [notice] = await ann.goes_on()
    receipts.shown(notice["id"])
    receipts.shown("0" * 20)
    assert [each["outlet"] for each in await ann.goes_on(600)] == ["mail"]
    receipts.shown(notice["id"])
    assert {each.outlet: each.shown_at is not None for each in ann.ledger.deliveries(9)} == {
        "phone": True,
        "mail": False,
    }
