"""What the tools work on: one fleet, its journal, and what this process remembers of its answers."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from opencode_fleet.control import Controller
from opencode_fleet.inbox import Inbox
from opencode_journal.journal import Journal
from opencode_mcp.caller import account
from opencode_mcp.handles import Handles
from opencode_mcp.views.instances import InstanceRows
from opencode_mcp.views.shown import Shown, ShownByLogin

if TYPE_CHECKING:
    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet
    from opencode_mcp.caller import Caller


class Face:
    """The fleet, who acts on it, what happened there, and what was shown.

    `journal`: by default one in memory. `call_seconds`: how long a call may take.
    """

    def __init__(
        self, fleet: Fleet, driver: Driver, journal: Journal | None = None, *, call_seconds: float = 300.0
    ) -> None:
        self.fleet = fleet
        self.driver = driver
        self.controller = Controller(fleet, driver)
        self.journal = journal or Journal(None)
        self.call_seconds = call_seconds
        self.inbox = Inbox(fleet, self.journal)
        self.handles = Handles(self.journal)
        self.rows = InstanceRows(self.handles)
        self.caller = account()
        self.shown = Shown()
        """What the caller was shown."""
        self._shown_by_login = ShownByLogin()

    def of(self, caller: Caller) -> Face:
        """Return the face as this caller has it."""
        own = copy(self)
        own.caller, own.shown = caller, self._shown_by_login.of(caller.login)
        own.driver = self.driver.acting_for(caller.login)
        own.controller = self.controller.acting_for(own.driver)
        return own
