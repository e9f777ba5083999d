"""What the tools work on: one fleet, its journal, and what this process remembers of its answers."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from opencode_fleet.control import Controller
from opencode_fleet.inbox import Inbox
from opencode_fleet.later import Later
from opencode_fleet.opening import Opener
from opencode_fleet.outbox import Outbox
from opencode_journal.journal import Journal
from opencode_mcp.attachments import Attachments
from opencode_mcp.caller import account
from opencode_mcp.handles import Handles
from opencode_mcp.views.instances import InstanceRows
from opencode_mcp.views.shown import Shown, ShownByLogin
from opencode_mcp.views.ways import HERE

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet
    from opencode_mcp.attachments import UploadPage
    from opencode_mcp.caller import Caller


class Face:
    """The fleet, who acts on it, what happened there, and what was shown.

    `journal`: by default one in memory. `outbox`: by default one of that journal. `call_seconds`: how long a call
    may take. `uploads`: where a page for uploads puts files; None where there is none. `failing`: says to a login, in
    a line, by what they are not told though they should be.
    """

    def __init__(
        self,
        fleet: Fleet,
        driver: Driver,
        journal: Journal | None = None,
        *,
        outbox: Outbox | None = None,
        call_seconds: float = 300.0,
        uploads: UploadPage | None = None,
        failing: Callable[[str], str] = lambda _login: "",
    ) -> None:
        self.fleet = fleet
        self.driver = driver
        self.controller = Controller(fleet, driver)
        self.opener = Opener(fleet)
        self.journal = journal or Journal(None)
        self.call_seconds = call_seconds
        self.inbox = Inbox(fleet, self.journal)
        self.outbox = outbox or Outbox(self.journal)
        self.later = Later(fleet, driver, self.outbox, self.journal)
        self.handles = Handles(self.journal)
        self.attachments = Attachments(self.journal, uploads)
        self.rows = InstanceRows(self.handles)
        self.caller = account()
        self.ways = HERE
        """How the caller settles asks."""
        self.shown = Shown(self.handles)
        """What the caller was shown."""
        self._failing = failing
        self._shown_by_login = ShownByLogin(self.handles)

    def of(self, caller: Caller) -> Face:
        """Return the face as this caller has it."""
        own = copy(self)
        own.caller, own.ways = caller, caller.ways()
        own.shown = self._shown_by_login.of(caller.login).saying(own.ways)
        own.driver = self.driver.acting_for(caller.login, own.ways.no_always())
        own.controller = self.controller.acting_for(own.driver)
        return own

    @property
    def problem(self) -> str:
        """What the caller may not hear of in time, and why; empty if all is well."""
        return "; ".join(filter(None, (self.journal.trouble, self._failing(self.caller.login))))

    def beside(self) -> Face:
        """Return the face for what a client may fetch unasked: what it shows counts as shown to nobody."""
        own = copy(self)
        own.shown = Shown(self.handles)
        return own
