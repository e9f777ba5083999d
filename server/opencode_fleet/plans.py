"""Plans: what would be destroyed is shown first, and done only when the handle of what was shown comes back.

A handle is random, good for one use, and bound to what was shown: the deed, where, and the state of the thing.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from opencode_common.text import one_line
from opencode_fleet.errors import Refused

GOOD_FOR: Final = 600.0
"""Seconds in which a plan may be used; what a used one did is told for as long, from then on."""
MAX_PLANS: Final = 200
_HANDLE = re.compile(r"p[0-9a-f]{8}")


class Deed(NamedTuple):
    """What is to be done, and where: names of instances, and the id of a session where it is about one."""

    action: str
    where: tuple[str, ...]


@dataclass(slots=True)
class _Plan:
    deed: Deed
    state: frozenset[str]
    at: float
    is_used: bool = False
    did: str = ""


class Plans:
    """The plans that this process has shown and not forgotten."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    def propose(self, deed: Deed, state: frozenset[str]) -> str:
        """Keep a plan for what stands as `state` says now, item by item, and return its handle."""
        handle = f"p{secrets.token_hex(4)}"
        self._plans[handle] = _Plan(deed, state, time.monotonic())
        while len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return handle

    def used(self, handle: str) -> str | None:
        """Return what a plan did that was used already; None: it was not used.

        Raises:
            Refused: there is no such plan, or not any more.
        """
        plan = self._find(handle)
        if not plan.is_used:
            return None
        return plan.did or "how it ended was not heard yet"

    def use(self, handle: str, deed: Deed, state: frozenset[str]) -> None:
        """Use a plan up, for just what it was shown for. Whoever does it says by `finish` what was done.

        Of `state` items may have gone since, and none may have come.

        Raises:
            Refused: it is used, for something else, or what it is about has changed; nothing may be done.
        """
        plan = self._find(handle)
        if plan.is_used:
            raise Refused(f"plan {handle} is used already; nothing was done again")
        if plan.deed != deed:
            raise Refused(f"plan {handle} is for something else; call without `plan` to see what would be done now")
        if not state <= plan.state:
            raise Refused(
                f"what plan {handle} is about has changed since it was shown; nothing was done. Call without `plan` "
                "to see what would be done now"
            )
        plan.is_used, plan.at = True, time.monotonic()

    def finish(self, handle: str, did: str) -> None:
        """Remember what a plan that was used did."""
        if plan := self._plans.get(handle):
            plan.did = did

    def _find(self, handle: str) -> _Plan:
        plan = self._plans.get(handle) if _HANDLE.fullmatch(handle) else None
        if plan is None or time.monotonic() - plan.at > GOOD_FOR:
            raise Refused(
                f"there is no plan {one_line(handle, 40)!r} (any more); plans are good for ten minutes. Nothing was "
                "done. Call without `plan` to see what would be done"
            )
        return plan
