"""What this process has shown of asks, and to whom: nothing is approved of which the person has not had the whole.

An ask is shown under its handle, the short name that `reply` takes.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from typing import TYPE_CHECKING, Final

from opencode_common.text import fence
from opencode_mcp.views.asks import ask_row, outline, whole_text
from opencode_mcp.views.digests import digest_of
from opencode_mcp.views.ways import HERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_mcp.handles import Handles
    from opencode_mcp.views.asks import AskRow
    from opencode_mcp.views.ways import Ways

WHOLE: Final = 6_000
"""Characters of an ask that is shown whole unasked."""
MAX_WHOLE: Final = 12_000
MAX_LISTED: Final = 24_000
"""Characters of all asks of one answer: up to the first they are whole, up to the second outlined, then one line."""
BRIEF: Final = 1_000
"""Characters of an ask that is shown whole among those of all instances."""
MAX_REMEMBERED: Final = 1_000
MAX_LOGINS: Final = 100


class Shown:
    """Writes asks for people, and how they are settled, and remembers which ones it wrote whole."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._ways = HERE
        self._seen: OrderedDict[tuple[str, str], int | None] = OrderedDict()
        """By instance and ask what was shown whole, as a hash; None: only a part of it was shown."""

    def saying(self, ways: Ways) -> Shown:
        """Return it with other words on how asks are settled; what it wrote whole counts for both."""
        own = copy(self)
        own._ways = ways  # noqa: SLF001 - of the same class
        return own

    def how_to_settle(self, handles: Sequence[str]) -> str:
        """Say how asks with these handles are settled."""
        return self._ways.how_to_settle(handles)

    def name(self, instance: Instance, ask: Ask) -> str:
        """Return what the person and the model call an ask, as it is now."""
        return self._handles.of_ask(instance.name, ask.id, digest_of(instance, ask))

    def session(self, instance: Instance, session_id: str) -> str:
        """Return what the person and the model call a session; what is empty stays so."""
        return self._handles.of_session(instance.name, session_id) if session_id else ""

    def rows(self, instance: Instance, asks: Sequence[Ask]) -> list[AskRow]:
        """Return what programs get of asks."""
        self._handles.prepare_asks([(instance.name, ask.id, digest_of(instance, ask)) for ask in asks])
        return [ask_row(instance, ask, self.name(instance, ask)) for ask in asks]

    def text(self, instance: Instance, asks: Sequence[Ask]) -> str:
        """Return the asks, whole as far as they are short and few, and how to settle them."""
        blocks: list[str] = []
        parts: list[str] = []
        too_large: list[str] = []
        length = 0
        rows = self.rows(instance, asks)
        for ask, row in zip(asks, rows, strict=True):
            whole = whole_text(instance, ask)
            is_whole = whole is not None and len(whole) <= WHOLE and length + len(whole) <= MAX_WHOLE
            block = whole if whole is not None and is_whole else outline(instance, ask)
            if length + len(block) > MAX_LISTED:
                block = row.summary
            self._note(instance, ask, is_whole=is_whole)
            if not is_whole:
                (too_large if whole is None else parts).append(row.handle)
            blocks.append(self._block(instance, row, block))
            length += len(block)
        return self._listing(rows, blocks, parts, too_large)

    def whole(self, instance: Instance, ask: Ask) -> str:
        """Return one ask, whole if that is possible at all, and how to settle it."""
        whole = whole_text(instance, ask)
        self._note(instance, ask, is_whole=whole is not None)
        (row,) = self.rows(instance, [ask])
        block = self._block(instance, row, outline(instance, ask) if whole is None else whole)
        return self._listing([row], [block], [], [row.handle] if whole is None else [])

    def brief(self, instance: Instance, ask: Ask, left: int) -> tuple[str, bool]:
        """Return one ask, whole if it is short and fits `left` characters, else its gist; and whether it is whole."""
        whole = whole_text(instance, ask)
        is_whole = whole is not None and len(whole) <= min(BRIEF, left)
        self._note(instance, ask, is_whole=is_whole)
        return (whole, True) if whole is not None and is_whole else (ask_row(instance, ask).summary, False)

    def is_listed(self, instance: Instance, ask: Ask) -> bool:
        """Tell whether this process wrote the ask whole, as it is now: else it may not be approved."""
        return self._seen.get((instance.name, ask.id)) == hash(ask)

    def _block(self, instance: Instance, row: AskRow, text: str) -> str:
        return f"{row.handle} ({row.kind}, session {self.session(instance, row.session)})\n{text}"

    def _listing(self, rows: Sequence[AskRow], blocks: list[str], parts: list[str], too_large: list[str]) -> str:
        lines = [fence("\n".join(blocks))]
        if parts:
            lines.append(
                f"Not shown whole: {', '.join(parts)}. Before it can be approved, `reply` with its `ask` and no "
                "`answer` lists all of it."
            )
        if too_large:
            lines.append(
                f"Too large to be shown whole: {', '.join(too_large)}. Reject it, or settle it on the machine itself."
            )
        return "\n".join([*lines, self.how_to_settle([row.handle for row in rows])])

    def _note(self, instance: Instance, ask: Ask, *, is_whole: bool) -> None:
        key, content = (instance.name, ask.id), hash(ask)
        if is_whole or self._seen.get(key) != content:
            self._seen[key] = content if is_whole else None
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)


class ShownByLogin:
    """What was shown to each login: what one person has seen, another has not."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._shown: OrderedDict[str, Shown] = OrderedDict()

    def of(self, login: str) -> Shown:
        """Return what was shown to this login. Whoever came longest ago makes room."""
        shown = self._shown.setdefault(login, Shown(self._handles))
        self._shown.move_to_end(login)
        while len(self._shown) > MAX_LOGINS:
            self._shown.popitem(last=False)
        return shown
