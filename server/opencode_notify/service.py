"""The sender with all that it needs, for whatever process runs it beside its other work."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

from opencode_common.files import FileIdentity
from opencode_journal.leader import Leader
from opencode_notify.ledger import Ledger
from opencode_notify.problems import NotifyError
from opencode_notify.reading import read_journal
from opencode_notify.receipts import Receipts
from opencode_notify.rules import ToldPerson, load_people
from opencode_notify.sender import NoticeSender
from opencode_notify.tables import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from opencode_notify.notice import Outlet
    from opencode_notify.rules import OutletSettings
    from opencode_notify.sender import Drop

    IsTold = Callable[[str, OutletSettings], bool]

_log = logging.getLogger(__name__)


class PeopleFile:
    """Who is told what, read anew whenever the file is another one; what is wrong in it changes nothing.

    Args:
        path: of the file.
        is_told: whether a person may be told by an outlet now. It is asked each time: that is in no file of ours.
    """

    def __init__(self, path: Path, is_told: IsTold = lambda _person, _settings: True) -> None:
        self._path = path
        self._is_told = is_told
        self._seen: FileIdentity | None = None
        self._people: dict[str, ToldPerson] = {}
        self._told: dict[str, ToldPerson] = {}

    def __call__(self) -> dict[str, ToldPerson]:
        """Return who is told what; the same object as before where nothing changed."""
        told = {name: self._as_told(name, person) for name, person in self._written().items()}
        if told != self._told:
            self._told = told
        return self._told

    def _as_told(self, name: str, person: ToldPerson) -> ToldPerson:
        outlets = tuple(each for each in person.outlets if self._is_told(name, each))
        return person if outlets == person.outlets else ToldPerson(outlets=outlets, rules=person.rules)

    def _written(self) -> dict[str, ToldPerson]:
        try:
            identity = FileIdentity.of(self._path.lstat())
        except FileNotFoundError:
            identity = None
        except OSError as error:
            _log.warning("%s cannot be looked at: %s", self._path, error.strerror)
            return self._people
        if identity != self._seen:
            self._seen = identity
            try:
                self._people = load_people(self._path)
            except NotifyError as error:
                _log.warning("%s; people are told as before", error)
        return self._people


@asynccontextmanager
async def telling(
    state_dir: Path,
    people: Path,
    outlet_of: Callable[[dict[str, Any]], Outlet],
    *,
    page_of: Callable[[str], str] = lambda _message: "",
    relay: str = "",
    drop: Drop = lambda _person, _settings: False,
    is_told: IsTold = lambda _person, _settings: True,
) -> AsyncIterator[Receipts]:
    """Tell people meanwhile what must be told, unless another copy does; give what takes receipts.

    Args:
        state_dir: the journal's directory.
        people: see `rules`.
        outlet_of: see `NoticeSender`, as are the next.
        page_of: the address of a message's page.
        relay: its name.
        drop: what becomes of outlets that are gone.
        is_told: see `PeopleFile`.

    Raises:
        OSError: the directory cannot be used.
        DatabaseError: what was told cannot be read.
    """
    directory = state_dir / DIRECTORY
    with closing(Ledger(directory)) as ledger:
        journal, leader, listed = read_journal(state_dir), Leader(directory), PeopleFile(people, is_told)
        sender = NoticeSender(journal, ledger, leader, listed, outlet_of, page_of=page_of, relay=relay, drop=drop)
        async with journal.watching(), leader.standing():
            task = asyncio.create_task(sender.run(), name="sender")
            try:
                yield Receipts(journal, ledger, listed)
            finally:
                task.cancel()
                await asyncio.wait([task])
