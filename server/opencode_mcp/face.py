"""What the tools work on: one fleet, and what this process remembers of its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opencode_mcp.views.instances import InstanceRows
from opencode_mcp.views.shown import Shown

if TYPE_CHECKING:
    from opencode_fleet.control import Controller
    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Face:
    """The fleet, who acts on it, and what was shown."""

    fleet: Fleet
    driver: Driver
    controller: Controller
    rows: InstanceRows = field(default_factory=InstanceRows)
    shown: Shown = field(default_factory=Shown)
