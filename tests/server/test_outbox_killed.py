"""A copy of the server that is killed while it keeps messages: each that it told of is there, whole."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from opencode_fleet.outbox import Draft, Outbox
from opencode_journal.entries import MESSAGE, MESSAGE_ACCEPTED
from opencode_journal.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

KEEP_UNTIL_KILLED = """
import sys
from pathlib import Path
from opencode_fleet.outbox import Draft, Outbox
from opencode_journal.journal import Journal

outbox = Outbox(Journal(Path(sys.argv[1])))
number = 0
while True:
    message = outbox.accept(Draft(f"laptop-{number}", f"text {number} " * 1_000, "ann"))
    print(message.handle, number, flush=True)
    number += 1
    if number > 20:
        outbox.cancel(f"m{number - 20}", "", "ann")
"""


def test_what_a_killed_copy_told_of_is_kept_whole_and_its_handles_are_not_given_again(tmp_path: Path) -> None:
    copy = subprocess.Popen(
        [sys.executable, "-c", KEEP_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert copy.stdout is not None
    lines = [copy.stdout.readline() for _ in range(40)]
    copy.kill()
    lines += [line for line in copy.stdout if line.endswith("\n")]
    copy.communicate()
    told = {handle: int(number) for handle, number in map(str.split, lines)}

    journal = Journal(tmp_path)
    outbox = Outbox(journal)
    there = {message.handle: outbox.text(message) for message in outbox.messages()}
    newest = max(told.values())
    for handle, number in told.items():
        if number > newest - 19:  # no older one is left
            assert there[handle] == f"text {number} " * 1_000
    accepted = [entry.data[MESSAGE] for entry in journal.latest(10_000, {MESSAGE_ACCEPTED})]
    assert set(told) <= set(accepted)
    assert outbox.accept(Draft("laptop", "one more", "ann")).handle not in accepted
    journal.close()
