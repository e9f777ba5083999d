"""Short handles of sessions and asks (`s12`, `a3`), which stand wherever an id may stand."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from opencode_common.text import one_line, quote_name
from opencode_fleet.errors import Refused
from opencode_journal.journal import edition, of_edition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.instance import Instance
    from opencode_journal.journal import Handled, Journal

_FORM: Final = re.compile(r"[as][0-9]{1,16}", re.IGNORECASE)
_ID: Final = re.compile(r"\w{1,80}", re.ASCII)
_MAX_CACHED: Final = 5_000
_DAY: Final = 86_400
_WORDS: Final[dict[Handled, tuple[str, str]]] = {"s": ("session", "`instances`"), "a": ("ask", "`inbox`")}
"""What each kind is called, and the tool that lists them."""


class Handles:
    """Gives handles, and finds what they stand for."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._edition = self.edition
        self._given: OrderedDict[tuple[Handled, str, str], str] = OrderedDict()

    @property
    def edition(self) -> tuple[str, int]:
        """What is given is good for as long as this stays the same: in one journal, for one day.

        The journal forgets those that it is not asked for.
        """
        return self._journal.epoch, int(time.time() // _DAY)

    def prepare(self, kind: Handled, things: Iterable[tuple[str, str]]) -> None:
        """Have the handles of many, each given by instance and id, at the price of one: a new one is kept at once."""
        self._renew()
        new = [thing for thing in dict.fromkeys(things) if (kind, *thing) not in self._given]
        if new:
            for thing, handle in zip(new, self._journal.handles(kind, new), strict=True):
                self._given[kind, *thing] = handle
            while len(self._given) > _MAX_CACHED:
                self._given.popitem(last=False)

    def of_session(self, instance: str, session_id: str) -> str:
        """Return the session's handle."""
        return self._of("s", instance, session_id)

    def prepare_asks(self, asks: Iterable[tuple[str, str, str]]) -> None:
        """Do so for asks, each given by instance, id and digest; of one without a digest it is not worth it."""
        self.prepare("a", [(instance, edition(ask_id, digest)) for instance, ask_id, digest in asks if digest])

    def of_ask(self, instance: str, ask_id: str, digest: str = "") -> str:
        """Return the handle of an ask as `digest` has it; an empty one stands for whatever it was last shown as."""
        if digest:
            return self._of("a", instance, edition(ask_id, digest))
        return self._journal.latest_handle("a", instance, ask_id) or self._of("a", instance, ask_id)

    def known_ask(self, instance: str, ask_id: str) -> str:
        """Return what an ask is called: its handle if it was given one, else its id."""
        return (self._journal.latest_handle("a", instance, ask_id) if _ID.fullmatch(ask_id) else "") or ask_id

    def session_id(self, instance: Instance, text: str | None) -> str | None:
        """Return the id of the session that `text` names by handle; any other text as it is, None for a blank one.

        Raises:
            Refused: no session of the instance has the handle.
        """
        text = (text or "").strip()
        return self._id("s", instance.name, text) if text else None

    def session_id_at(self, instance: str, text: str) -> str:
        """Return the same for an instance of which only the name is known; a blank text as an empty one."""
        return self._id("s", instance, text.strip())

    def instance_of_session(self, handle: str) -> str:
        """Return the name of the instance whose session has this handle.

        Raises:
            Refused: no session has it.
        """
        return self._thing("s", handle, "`sessions`")[0]

    def ask(self, handle: str) -> tuple[str, str]:
        """Return the name of the instance whose ask has this handle, and the ask's id.

        Raises:
            Refused: no ask has it.
        """
        instance, id_ = self._thing("a", handle, "`inbox`")
        return instance, of_edition(id_)[0]

    def _thing(self, kind: Handled, handle: str, lists: str) -> tuple[str, str]:
        found = self._journal.of_handle(handle) if _FORM.fullmatch(handle) else None
        if found is None or found[0] != kind:
            raise Refused(f"no {_WORDS[kind][0]} has the handle {one_line(handle, 40)!r}; {lists} lists them")
        return found[1], found[2]

    def named_ask(self, instance: Instance, text: str) -> tuple[str, str]:
        """Return the id of the ask that `text` names by handle, and the digest that the handle stands for.

        Any other text is an id, with an empty digest; so is that of a handle that was given while it was not known.

        Raises:
            Refused: no ask of the instance has the handle.
        """
        return of_edition(self._id("a", instance.name, text.strip()))

    def _of(self, kind: Handled, instance: str, id_: str) -> str:
        self.prepare(kind, [(instance, id_)])
        return self._given[kind, instance, id_]

    def _renew(self) -> None:
        if self._edition != self.edition:
            self._edition = self.edition
            self._given.clear()

    def _id(self, kind: Handled, instance: str, text: str) -> str:
        if _FORM.fullmatch(text) is None:
            return text
        thing, lists = _WORDS[kind]
        found = self._journal.of_handle(text)
        if found is None or found[0] != kind:
            raise Refused(f"no {thing} has the handle {text}; {lists} lists them. Nothing was done")
        if found[1] != instance:
            # The other name may be one that its machine chose.
            raise Refused(
                f"{text} is {'an' if kind == 'a' else 'a'} {thing} of {one_line(found[1], 64)!r}, not of "
                f"{quote_name(instance)}. Nothing was done"
            )
        return found[2]
