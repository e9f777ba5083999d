"""Senders that are killed at random, and two at once, over one journal: real processes, and the kernel's kill."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opencode_journal.leader import FILE_NAME
from support import sender_program
from support.fake_outlet import told
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notify.conftest import Told

ASKS = 1_000
AT_ONE = 50
KILLS = 8
SEED = 14


@contextmanager
def sending(ann: Told) -> Iterator[subprocess.Popen[str]]:
    """Run a copy of the sender, and kill it at the end."""
    command = [sys.executable, sender_program.__file__, *map(str, (ann.directory, ann.path, ann.file))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def sent(ann: Told) -> list[str]:
    """Return the ids of what was sent, in order."""
    return [each["id"] for each in told(ann.file) if each["what"] == "sent"]


def message_of(ann: Told) -> dict[str, str]:
    """Return by ask which message tells of it."""
    rows = ann.ledger._all("SELECT key, message FROM items WHERE message IS NOT NULL")
    return {row["key"].rpartition("/")[2]: row["message"] for row in rows}


def test_of_a_thousand_asks_each_is_told_whenever_the_sender_is_killed(ann: Told) -> None:
    draws = random.Random(SEED)
    ann.rules(grouping_seconds=0, withdraw=False)
    asks = [f"per_{n}" for n in range(ASKS)]
    for first in range(0, ASKS, AT_ONE):
        ann.fleet.asks(f"laptop-{first}", *asks[first : first + AT_ONE])
    open_ = set(asks)
    gone: dict[str, int] = {}
    for _ in range(KILLS):
        goal = len(sent(ann)) + draws.randint(1, 60)
        with sending(ann):
            eventually(lambda goal=goal: len(sent(ann)) >= goal)  # type: ignore[misc]
        # No sender runs now: what is settled here must not be told from here on.
        settled = draws.sample(sorted(open_), 10)
        open_ -= set(settled)
        for ask in settled:
            ann.fleet.settles(f"laptop-{int(ask[4:]) // AT_ONE * AT_ONE}", ask)
            gone[ask] = len(sent(ann))
    with sending(ann):
        eventually(lambda: {message_of(ann)[ask] for ask in open_} <= set(sent(ann)))

    messages = message_of(ann)
    assert len({messages[ask] for ask in open_}) == len(open_)
    assert len(set(sent(ann))) <= ASKS
    repeats = len(sent(ann)) - len(set(sent(ann)))
    assert repeats <= KILLS  # of each kill at most the one that was under way
    for ask, after in gone.items():
        assert messages.get(ask) not in sent(ann)[after:], ask


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
