"""What a page or a service worker says of a message: that it was shown, that its person has opened it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from opencode_common.database import DatabaseError
from opencode_notify.due import still_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_journal.journal import Journal
    from opencode_notify.ledger import Ledger
    from opencode_notify.rules import ToldPerson

_log = logging.getLogger(__name__)


class Receipts:
    """Takes them into the ledger.

    Args:
        journal: of the server; it is only read.
        ledger: what was told.
        people: who is told what, as it is now.
        clock: epoch seconds.
    """

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        people: Callable[[], Mapping[str, ToldPerson]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._people = people
        self._clock = clock

    def opened(self, person: str, message: str) -> list[tuple[str, str]]:
        """Note that a person has opened a message of theirs; return which of its asks still wait, or its only ask.

        The values are the instance and the agent's id of each. Of anybody else's message nothing is noted or told.
        Never raises: what cannot be noted leaves the escalation as it is.
        """
        try:
            if self._ledger.person_of(message) != person:
                return []
            self._ledger.saw(message, None, "opened", self._clock())
            told = self._ledger.told_by(message)
            asks = [item.ask for item in told if item.ask]
            waiting = [item.ask for item in told if item.ask and still_waits(self._journal, item)]
            return waiting or (asks if len(told) == 1 else [])
        except DatabaseError as error:
            _log.warning("a receipt is lost: %s", error)
            return []

    def shown(self, message: str) -> None:
        """Note that a browser has shown a message. Anybody may say so: it changes nothing but what `status` lists."""
        try:
            person = self._people().get(self._ledger.person_of(message) or "")
            for outlet in person.outlets if person is not None else ():
                if outlet.kind == "web_push":
                    self._ledger.saw(message, outlet.name, "shown", self._clock())
        except DatabaseError as error:
            _log.warning("a receipt is lost: %s", error)
