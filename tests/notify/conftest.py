"""A journal as the fleet writes it, and a sender over it whose clock stands until it is set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.open_work import Open, OpenAsk, OpenWork
from opencode_journal.entries import ASK_OPENED, ASK_SETTLED, INSTANCE_BACK, INSTANCE_LOST
from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from opencode_notify.ledger import Ledger
from opencode_notify.reading import read_journal
from opencode_notify.rules import load_people
from opencode_notify.sender import NoticeSender
from opencode_notify.tables import DIRECTORY
from support.pages.fake_outlet import FakeOutlet, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opencode_notify.notice import Receipt

NOON = 1_800_014_400.0
"""12:00 UTC."""


class Fleet:
    """Writes what the recorder writes."""

    def __init__(self, directory: Path) -> None:
        self.journal = Journal(directory)
        self._open = OpenWork(self.journal)

    def asks(
        self, instance: str, *ids: str, about: str = "bash make", title: str = "", is_question: bool = False
    ) -> None:
        open_ = self._open.at(instance)

        def write() -> None:
            for id_ in ids:
                open_.asks[id_] = OpenAsk(NOON, "ses_1", is_question, about, title)
                self.journal.append(ASK_OPENED, instance, "ses_1", id_)
            self._open.set(instance, open_)

        self.journal.together(write)

    def settles(self, instance: str, *ids: str) -> None:
        open_ = self._open.at(instance)

        def write() -> None:
            for id_ in ids:
                del open_.asks[id_]
                self.journal.append(ASK_SETTLED, instance, "ses_1", id_)
            self._open.set(instance, open_)

        self.journal.together(write)

    def loses(self, instance: str, *, turns: int) -> None:
        self._open.set(instance, Open({f"ses_{n}": "" for n in range(turns)}, {}, NOON))
        self.journal.append(INSTANCE_LOST, instance)

    def finds(self, instance: str) -> None:
        self._open.set(instance, Open())
        self.journal.append(INSTANCE_BACK, instance)


def name_of(settings: dict[str, Any]) -> str:
    """Return the name of an outlet, which its address begins with here."""
    return str(settings["address"]).partition("-")[0]


class Told:
    """A person, `ann`, and a sender that tells her."""

    def __init__(self, directory: Path, tmp_path: Path) -> None:
        self.now = NOON
        self.fleet = Fleet(directory)
        self.path = tmp_path / "notify.json"
        self.file = tmp_path / "told"
        self.directory = directory
        self.answers: dict[str, list[Receipt]] = {}
        self.rules()
        self.begin()

    def begin(self) -> None:
        """Start the sender, also anew."""
        self.journal = read_journal(self.directory)
        self.ledger = Ledger(self.directory / DIRECTORY)
        self.leader = Leader(None)
        self.leader.look()
        self.sender = NoticeSender(
            self.journal,
            self.ledger,
            self.leader,
            lambda: load_people(self.path),
            lambda settings: FakeOutlet(self.file, name_of(settings), self.answers.get(name_of(settings))),
            clock=lambda: self.now,
        )

    def rules(self, *outlets: str, **rules: Any) -> None:
        listed = [{"name": name, "kind": "fake", "address": f"{name}-secret"} for name in outlets or ("phone",)]
        self.path.touch(0o600)
        self.path.write_text(json.dumps({"ann": {"outlets": listed, "rules": rules}}))

    async def goes_on(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """Let time pass, and return what outlets were given."""
        self.now += seconds
        before = len(told(self.file))
        seen = -1
        while seen < (seen := len(told(self.file))):
            for _ in range(2):  # what fails for good is handed on at the next step
                self.sender.step()
                await self.sender.settled()
        return told(self.file)[before:]

    def end(self) -> None:
        """Stop the sender."""
        self.ledger.close()
        self.journal.close()


@pytest.fixture
def ann(tmp_path: Path) -> Iterator[Told]:
    """She has one outlet, `phone`, and the rules of the first day."""
    found = Told(tmp_path / "state", tmp_path)
    yield found
    found.end()
    found.fleet.journal.close()
