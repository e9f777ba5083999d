"""A run in which asks are told and settled while the sender, a real process, is killed at random by the kernel."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.pages import sender_program
from support.pages.fake_outlet import told
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notify.conftest import Told

AT_ONE = 50
"""Asks of one instance."""
SETTLED = 10
"""At each kill, so that there may be a tenth as many kills as asks at most."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    missing: int
    """Asks that wait and were never told."""
    repeats: int
    """Messages that were sent once more, under the same id."""
    doubled: int
    """Asks that more than one message told."""
    late: int
    """Messages that were sent after their ask was settled."""


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


def killed_at_random(ann: Told, asks: int, kills: int, seed: int) -> Outcome:
    """Have so many asks told while the sender is killed so often; a seed repeats when, as far as processes do."""
    draws = random.Random(seed)
    ann.rules(grouping_seconds=0, withdraw=False)
    names = [f"per_{n}" for n in range(asks)]
    for first in range(0, asks, AT_ONE):
        ann.fleet.asks(f"laptop-{first}", *names[first : first + AT_ONE])
    open_ = set(names)
    gone: dict[str, int] = {}
    for _ in range(kills):
        goal = len(sent(ann)) + draws.randint(1, max(1, asks // (2 * kills)))
        with sending(ann):
            eventually(lambda goal=goal: len(sent(ann)) >= goal)  # type: ignore[misc]
        # No sender runs now: what is settled here must not be told from here on.
        settled = draws.sample(sorted(open_), SETTLED)
        open_ -= set(settled)
        for ask in settled:
            ann.fleet.settles(f"laptop-{int(ask[4:]) // AT_ONE * AT_ONE}", ask)
            gone[ask] = len(sent(ann))
    with sending(ann):
        eventually(lambda: {message_of(ann).get(ask) for ask in open_} <= set(sent(ann)))

    messages, all_sent = message_of(ann), sent(ann)
    return Outcome(
        missing=sum(messages.get(ask) not in all_sent for ask in open_),
        repeats=len(all_sent) - len(set(all_sent)),
        doubled=len(open_) - len({messages.get(ask) for ask in open_}) + max(len(set(all_sent)) - asks, 0),
        late=sum(messages.get(ask) in all_sent[after:] for ask, after in gone.items()),
    )
