"""The journal: what happened on all instances, in order, and what is remembered of it.

All copies of the server of one account share it: each appends, and each sees what the others append.
Where its file does not serve, it goes on in memory under another epoch, says why (`trouble`), and takes the entries
back into the file as soon as that serves again. Only what must outlive the server (`durable`) is refused then.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from opencode_common.database import DatabaseError
from opencode_journal.cursor import Cursor
from opencode_journal.entries import KEPT, KINDS, MAX_DATA_BYTES, MAX_NAME_CHARACTERS, Entry
from opencode_journal.errors import AnotherEpoch, NotKept, TooOld
from opencode_journal.nudges import Nudges
from opencode_journal.opening import OpenedRows
from opencode_journal.rows import EDITION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
    from pathlib import Path

    from opencode_journal.leader import Leader

T = TypeVar("T")
Handled = Literal["a", "m", "s", "u"]
"""What has handles: asks, messages, sessions and uploads."""
MAX_STATE_BYTES: Final = 256 * 1024
"""Of one state's value as JSON."""
MAX_BYTES: Final = 200_000_000
"""In the file, whatever its age: half a million entries or more."""
MAX_BYTES_IN_MEMORY: Final = 10_000_000
_LOOK_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
"""Seconds between looks after a file that has not served for long."""
_PRUNE_SECONDS: Final = 10.0
_PRUNE_BATCH: Final = 2_000
"""Entries that go at once: others wait for that long, and so does the event loop."""
_DAY: Final = 86_400
_HANDLE: Final = re.compile(r"([amsu])([1-9][0-9]{0,15})")


class Journal:
    """One connection to the journal of a directory, for one event loop or thread.

    Args:
        directory: made with mode 0700 if it is missing; None keeps all in memory.
        days: for how long entries are kept, handles after their last use, and states after they were set.
        leader: who writes into the file what was remembered while it did not serve; None: this copy is the only one.
    """

    def __init__(self, directory: Path | None, days: int = 14, leader: Leader | None = None) -> None:
        self._leader = leader
        self._opened = OpenedRows(directory, self._leads)
        self._nudges = Nudges(directory)
        self._days = days
        self._in_transaction = False
        self._is_durable = False
        self._has_appended = False
        self._news = asyncio.Event()

    @property
    def trouble(self) -> str:
        """Why what happens is remembered only until this server ends, or not at all, in one line; else empty."""
        if self._opened.trouble or self._leader is None or not self._leader.trouble:
            return self._opened.trouble
        return f"what happens is not recorded: {self._leader.trouble}"

    @property
    def is_kept(self) -> bool:
        """Whether the file serves: otherwise other copies see nothing of what this one appends."""
        return self._opened.is_kept

    def _leads(self) -> bool:
        if self._leader is None:
            return True
        self._leader.look()  # its file may serve again only now, too
        return self._leader.is_leader

    @property
    def epoch(self) -> str:
        """What tells this journal from others: numbers of entries mean something within it alone."""
        return self._opened.rows.epoch

    def cursor(self) -> Cursor:
        """Return the cursor of who has seen all that there is now."""
        return self._do(lambda: Cursor(self._opened.rows.epoch, self._opened.rows.last_seq))

    def after(self, cursor: Cursor, limit: int, kinds: Collection[str] | None = None) -> tuple[list[Entry], Cursor]:
        """Return the first `limit` entries after a cursor, the oldest first, and the cursor of who has seen them.

        Raises:
            AnotherEpoch, TooOld: what is new since then is not known; the message says what to do.
        """

        def read() -> tuple[list[Entry], Cursor]:
            rows = self._opened.rows
            with rows.view():
                last = rows.last_seq
                if cursor.epoch != rows.epoch or cursor.seq > last:
                    raise AnotherEpoch(
                        "this cursor is of another journal than the present one: begin anew without it"
                    )
                if cursor.seq + 1 < rows.first_seq:
                    raise TooOld(
                        f"entries are kept for {self._days} days, and this cursor is older: begin anew without it"
                    )
                entries = rows.since(cursor.seq, limit, kinds)
            return entries, Cursor(rows.epoch, entries[-1].seq if len(entries) == limit else last)

        return self._do(read)

    def append(
        self,
        kind: str,
        instance: str,
        session: str = "",
        ask: str = "",
        data: dict[str, Any] | None = None,
        *,
        durable: bool = False,
    ) -> Entry:
        """Write that something happened, and wake all who wait for changes.

        Args:
            kind: one of `entries.KINDS`.
            instance: of at most `entries.MAX_NAME_CHARACTERS`, as are the next two.
            session: empty where it is about none.
            ask: the same.
            data: JSON of at most `entries.MAX_DATA_BYTES`.
            durable: refuse what cannot be kept, and survive a power cut.

        Raises:
            NotKept: it is durable, and cannot be kept: nothing was written.
            ValueError: an argument is none of those.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}")
        _check_names(instance, session, ask)
        entry = Entry(0, time.time(), kind, instance, session, ask, data or {})
        text = _json(entry.data, MAX_DATA_BYTES)

        def write() -> Entry:
            self._has_appended = True
            return replace(entry, seq=self._opened.rows.append(entry, text))

        return self.together(write, durable=durable)

    def together(self, work: Callable[[], T], *, durable: bool = False) -> T:
        """Run `work`, and write all that it appends, sets and gives handles to, or nothing.

        It may run twice: what it did before was undone then. Within it, all is as durable as the whole.

        Args:
            work: reads and writes this journal, and does nothing else.
            durable: refuse what cannot be kept, and survive a power cut.

        Raises:
            NotKept: it is durable, and cannot be kept: nothing was written.
            ValueError: it is a part of something that is not durable.
        """
        if self._in_transaction:
            if durable and not self._is_durable:
                raise ValueError("what it is a part of is not durable")
            return work()
        if not durable:
            return self._write(work)
        self._look_for_the_file()
        if not self.is_kept:
            raise NotKept(f"this cannot be kept, so it was not done: {self.trouble}")
        try:
            return self._transaction(work, durable=True)
        except DatabaseError as error:
            raise NotKept(f"this cannot be kept, so it was not done: {self._opened.why(error)}") from error

    @property
    def _is_durable_now(self) -> bool:
        return self._in_transaction and self._is_durable

    def _write(self, work: Callable[[], T], *, durable: bool = False) -> T:
        return self._do(lambda: self._transaction(work, durable=durable))

    def _transaction(self, work: Callable[[], T], *, durable: bool) -> T:
        if self._in_transaction:
            return work()
        self._in_transaction, self._is_durable, self._has_appended = True, durable, False
        try:
            with self._opened.rows.transaction(durable=durable):
                result = work()
        finally:
            self._in_transaction = False
        if self._has_appended:
            self._wake()
            self._nudges.send()
        return result

    def _do(self, work: Callable[[], T]) -> T:
        """Run `work`, and once more in memory if the file fails."""
        if not self._in_transaction:
            self._look_for_the_file()
        try:
            return work()
        except DatabaseError as error:
            if self._in_transaction:
                # It is not only `work` that is to be done anew.
                raise
            self._opened.fall_back(error)
            self._wake()
        return work()

    def _look_for_the_file(self) -> None:
        """Nothing is read from a file that was removed, nor written to it."""
        if not self._opened.is_in_place() and self._opened.look():
            self._wake()

    def latest(self, limit: int, kinds: Collection[str] | None = None) -> list[Entry]:
        """Return the last `limit` entries, the oldest first; all `kinds` unless some are given."""
        return self._do(lambda: self._opened.rows.latest(limit, kinds))

    def handle(self, kind: Handled, instance: str, id_: str) -> str:
        """Return the handle of such a thing, as `a3` or `s12`: that of before, or a new one.

        None is given to two things, however long ago, if this is not called within `together`.
        """
        return self.handles(kind, [(instance, id_)])[0]

    def handles(self, kind: Handled, things: Sequence[tuple[str, str]]) -> list[str]:
        """Return the handles of many, each given by instance and id: see `handle`.

        An id may be that of an edition, as `edition` makes it: each has a handle of its own, and the first one takes
        over that of the thing itself, if it has one.
        """
        for thing in things:
            _check_names(*thing)

        def known() -> list[int | None]:
            return [self._opened.rows.number(kind, *thing, time.time()) for thing in things]

        def give() -> list[int]:
            rows, now = self._opened.rows, time.time()
            for thing in things:
                if EDITION in thing[1] and rows.number(kind, *thing, now) is None:
                    rows.become_edition(kind, *thing)
            return [rows.number(kind, *thing, now) or rows.new_number(kind, *thing, now) for thing in things]

        numbers = self._do(known)
        if None in numbers:
            # A power cut must not take it back: it would be given to something else.
            return [f"{kind}{number}" for number in self._write(give, durable=True)]
        return [f"{kind}{number}" for number in numbers]

    def latest_handle(self, kind: Handled, instance: str, id_: str) -> str:
        """Return the handle that such a thing has, of its latest edition; empty if it has none."""
        number = self._do(lambda: self._opened.rows.latest_number(kind, instance, id_, time.time()))
        return "" if number is None else f"{kind}{number}"

    def of_handle(self, text: str) -> tuple[Handled, str, str] | None:
        """Return kind, instance and id of what has this handle; None for a text that is none, or not any more.

        The id may be that of an edition.
        """
        found = _HANDLE.fullmatch(text.strip().lower())
        if found is None:
            return None
        kind = cast("Handled", found[1])
        thing = self._do(lambda: self._opened.rows.thing(kind, int(found[2]), time.time()))
        return None if thing is None else (kind, *thing)

    def knows(self, instance: str) -> bool:
        """Whether anything is remembered of an instance of just this name."""
        return self._do(lambda: self._opened.rows.knows(instance))

    def state(self, key: str) -> Any:
        """Return the JSON value that was set under `key`; None if none was, or for as long as entries are kept."""
        return self._do(lambda: self._opened.rows.state(key))

    def states(self, prefix: str) -> dict[str, Any]:
        """Return all values that were set under keys that begin with `prefix`, by key; see `state`."""
        return self._do(lambda: self._opened.rows.states(prefix))

    def state_keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix` of all that is set."""
        return self._do(lambda: self._opened.rows.state_keys(prefix))

    def set_state(self, key: str, value: Any) -> None:
        """Set a JSON value of at most `MAX_STATE_BYTES`; None removes it. Raises `ValueError` for others.

        One under a key that begins with `entries.KEPT` is set within a durable `together`, and stays until removed.
        """
        if key.startswith(KEPT) and not self._is_durable_now:
            raise ValueError("what must be kept is set within a durable transaction")
        _check_names(key)
        text = None if value is None else _json(value, MAX_STATE_BYTES)
        self.together(lambda: self._opened.rows.set_state(key, text, time.time()))

    def prune(self, now: float) -> int:
        """Remove what is too old at `now`, a bounded part at a time; return how many entries that were."""
        before = now - self._days * _DAY

        def prune() -> int:
            max_bytes = MAX_BYTES if self.is_kept else MAX_BYTES_IN_MEMORY
            return self._opened.rows.prune(before, max_bytes, _PRUNE_BATCH)

        return self._do(prune)

    def changed(self) -> Coroutine[Any, Any, object]:
        """Return what to wait for until somebody, here or in another process, may have appended something.

        It counts from this call on, not from when it is awaited: whoever looks and calls this, with nothing awaited
        in between, misses nothing. Other processes are noticed only within `watching`.
        """
        return self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Notice what other processes append, prune, and look after the file; close the journal at the end."""
        with self._nudges.listening(self._wake):
            task = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                self.close()

    async def _watch(self) -> None:
        prune_at, pause = 0.0, _LOOK_SECONDS
        while True:
            if self._opened.look():
                self._wake()
            pause = _LOOK_SECONDS if self.is_kept else min(2 * pause, _LONGEST_PAUSE)
            is_more = False
            if time.monotonic() >= prune_at:
                is_more = self.prune(time.time()) == _PRUNE_BATCH
                prune_at = time.monotonic() + (0 if is_more else _PRUNE_SECONDS)
            await asyncio.sleep(0 if is_more else pause)

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._opened.rows.close()


def edition(id_: str, mark: str) -> str:
    """Return what stands for one edition of a thing, of which `mark` is told apart from others."""
    return f"{id_}{EDITION}{mark}"


def of_edition(id_: str) -> tuple[str, str]:
    """Return the thing's own id and the mark of an edition, or an empty one."""
    own, _, mark = id_.partition(EDITION)
    return own, mark


def _check_names(*names: str) -> None:
    if any(len(name) > MAX_NAME_CHARACTERS for name in names):
        raise ValueError(f"a name has more than {MAX_NAME_CHARACTERS} characters")


def _json(value: Any, limit: int) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half a character, which the database does not take as it is
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        size = len(text)
    if size > limit:
        raise ValueError(f"JSON of more than {limit} bytes")
    return text
