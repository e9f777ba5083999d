"""What the tools work on: one fleet, and what this process remembers of its answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opencode_mcp.caller import Caller, account
from opencode_mcp.views.instances import InstanceRows
from opencode_mcp.views.shown import Shown, ShownByLogin

if TYPE_CHECKING:
    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Face:
    """The fleet, who acts on it, and what was shown."""

    fleet: Fleet
    driver: Driver
    rows: InstanceRows = field(default_factory=InstanceRows)
    caller: Caller = field(default_factory=account)
    shown: Shown = field(default_factory=Shown)
    """What the caller was shown."""
    shown_by_login: ShownByLogin = field(default_factory=ShownByLogin)

    def of(self, caller: Caller) -> Face:
        """Return the face as this caller has it."""
        return replace(self, caller=caller, shown=self.shown_by_login.of(caller.login))
