"""Senders that are killed at random, and two at once, over one journal: real processes, and the kernel's kill.

`tests/bench/telling.py` does the former with more kills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from notify.killing import Outcome, killed_at_random, sending, sent
from opencode_journal.leader import FILE_NAME
from support.waiting import eventually

if TYPE_CHECKING:
    from notify.conftest import Told

ASKS = 1_000
KILLS = 8
SEED = 14


def test_of_a_thousand_asks_each_is_told_whenever_the_sender_is_killed(ann: Told) -> None:
    outcome = killed_at_random(ann, ASKS, KILLS, SEED)
    # Of each kill at most the one that was under way is sent again.
    assert outcome.repeats <= KILLS
    assert outcome == Outcome(missing=0, repeats=outcome.repeats, doubled=0, late=0)


def test_of_two_senders_one_sends_and_the_other_goes_on_when_it_is_killed(ann: Told) -> None:
    ann.rules(grouping_seconds=0)
    with sending(ann) as first, sending(ann):
        ann.fleet.asks("laptop-app", *(f"per_{n}" for n in range(50)))
        eventually(lambda: len(set(sent(ann))) == 50)
        assert len(sent(ann)) == 50
        first.kill()
        ann.fleet.asks("desk-api", "per_1")
        eventually(lambda: len(set(sent(ann))) == 51)
    assert len(sent(ann)) <= 52  # what was under way at the kill may go again, under the same id
    assert not (ann.directory / FILE_NAME).exists()  # who only reads never stands for the server's own election
