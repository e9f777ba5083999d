"""The last refusals, kept for the owner, whom a client that does not get in tells nothing.

Strangers cause most of them, so all of it is bounded:

- Refusals of one kind, of one client and from one network are one row, which counts them.
- Each kind has so many rows. Where they are all taken, the part of the internet that has most of them gives up its
  oldest. So nobody pushes out what another network's clients met, and a kind never what another met.
- Rows lie in memory. A worker writes what changed, at most once in a second, whatever comes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from opencode_common.text import one_line
from opencode_gateway.audit import AuditEvent
from opencode_gateway.errors import GatewayError
from opencode_gateway.refusals import KINDS
from opencode_gateway.sign_in.throttle import Buckets, Budget, network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opencode_gateway.refusals import Refusal
    from opencode_gateway.store import Store

MAX_ROWS: Final = 50
"""Of each kind."""
KEPT_SECONDS: Final = 30 * 86400
WRITE_SECONDS: Final = 1.0
"""Between the beginnings of two writes."""
AUDITED: Final = Budget(10, 60)
"""Lines of the audit log for each kind: a storm must not push everything else out of it. The rows count on."""
_MAX_CLIENT: Final = 80
_MAX_TEXT: Final = 500
_MAX_ADDRESS: Final = 64
_WIDE_V4: Final = 16
_WIDE_V6: Final = 32
_MAX_PROVIDERS: Final = 1024
"""Remembered, which is more than there are rows."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RefusalRow:
    """Refusals that are alike, as `refusals` shows them. Times are seconds since the epoch."""

    kind: str
    client: str
    """How it called itself last, as it may be shown; empty if it did not."""
    network: str
    address: str
    """The last one."""
    reason: str
    remedy: str
    count: int
    first_at: float
    last_at: float


class _Key(NamedTuple):
    kind: str
    client: str
    network: str


class Refusals:
    """Records refusals.

    Args:
        store: one of its own: a worker waits for it where it is locked.
        on_event: hears of some, see `AUDITED`.
        clock: seconds since the epoch.

    Raises:
        StoreError: what was kept before cannot be read.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_event: Callable[[AuditEvent], None] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._on_event = on_event
        self._clock = clock
        self._audited = Buckets(AUDITED, time.monotonic, max_keys=len(KINDS))
        self._lock = threading.Lock()
        """Of what follows: the worker reads it."""
        self._rows = {_key(row): row for row in list_refusals(store, since=clock() - KEPT_SECONDS)}
        self._changed: set[_Key] = set()
        self._writing: asyncio.Task[None] | None = None
        self._wrote_at = float("-inf")

    def record(self, refusal: Refusal) -> None:
        """Count a refusal. Nothing is waited for, and nothing is raised."""
        now = self._clock()
        row = RefusalRow(
            kind=refusal.kind,
            client=one_line(refusal.client, _MAX_CLIENT),
            network=network(refusal.address),
            address=one_line(refusal.address, _MAX_ADDRESS),
            reason=one_line(refusal.reason, _MAX_TEXT),
            remedy=one_line(refusal.remedy, _MAX_TEXT),
            count=1,
            first_at=now,
            last_at=now,
        )
        key = _key(row)
        with self._lock:
            known = self._rows.get(key)
            if known is not None:
                row = replace(row, count=known.count + 1, first_at=known.first_at)
            else:
                self._make_room(refusal.kind)
            self._rows[key] = row
            self._changed.add(key)
        self._audit(refusal.kind, row)
        self._write_soon()

    def flush(self) -> bool:
        """Write what changed; tell whether it could be. If not, it is written with the next refusal."""
        before = self._clock() - KEPT_SECONDS
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if row.last_at >= before}
            changed, self._changed = self._changed, set()
            rows = {key: self._rows.get(key) for key in changed}
        try:
            with self._store.transaction() as db:
                db.execute("DELETE FROM refusals WHERE last_at < ?", (before,))
                for key, row in rows.items():
                    db.execute("DELETE FROM refusals WHERE (kind, client, network) = (?, ?, ?)", key)
                    if row is not None:
                        db.execute(
                            "INSERT INTO refusals (kind, client, network, address, reason, remedy, count, first_at,"
                            " last_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                            (*key, row.address, row.reason, row.remedy, row.count, row.first_at, row.last_at),
                        )
        except GatewayError as error:
            _log.warning("refusals cannot be written down now: %s", error)
            with self._lock:
                self._changed |= changed
            return False
        return True

    def close(self) -> None:
        """Write what is left, and close the store."""
        if self._writing is not None:
            self._writing.cancel()
        self.flush()
        self._store.close()

    def _make_room(self, kind: str) -> None:
        rows = [row for row in self._rows.values() if row.kind == kind]
        if len(rows) < MAX_ROWS:
            return
        key = _key(_least_missed(rows))
        del self._rows[key]
        self._changed.add(key)

    def _audit(self, kind: str, row: RefusalRow) -> None:
        if self._audited.wait(kind):
            return
        self._audited.take(kind)
        self._on_event(
            AuditEvent(
                event="client-refused",
                outcome="refused",
                client_name=row.client or None,
                address=row.address,
                details={"refusal": kind, "reason": row.reason},
            )
        )

    def _write_soon(self) -> None:
        if self._writing is not None and not self._writing.done():
            return
        with suppress(RuntimeError):  # no loop: a command or a test, which ends with `close`
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._changed:
            await asyncio.sleep(max(0.0, self._wrote_at + WRITE_SECONDS - time.monotonic()))
            self._wrote_at = time.monotonic()
            if not await asyncio.to_thread(self.flush):
                return


def list_refusals(store: Store, *, since: float = 0.0) -> list[RefusalRow]:
    """Return what is kept, the newest first; `since`: those of which the last came then or later.

    Raises:
        StoreError: it cannot be read.
    """
    with store.transaction(write=False) as db:
        found = db.execute("SELECT * FROM refusals WHERE last_at >= ? ORDER BY last_at DESC", (since,)).fetchall()
    return [RefusalRow(**dict(row)) for row in found]


def _key(row: RefusalRow) -> _Key:
    return _Key(row.kind, row.client, row.network)


def _least_missed(rows: Iterable[RefusalRow]) -> RefusalRow:
    """Return the row that makes room: of the provider with most rows, of its network with most, the oldest."""
    rows = list(rows)
    ways: tuple[Callable[[str], str], ...] = (_provider, str)
    for of in ways:
        counts = Counter(of(row.network) for row in rows)
        most = max(counts.values())
        rows = [row for row in rows if counts[of(row.network)] == most]
    return min(rows, key=lambda row: row.last_at)


# Strangers have it asked about all rows with each request that is refused, in the event loop.
@lru_cache(maxsize=_MAX_PROVIDERS)
def _provider(network: str) -> str:
    """Return what one provider of networks has: many of the latter cost a stranger little."""
    with suppress(ValueError):
        address = ipaddress.ip_interface(network).ip
        wide = _WIDE_V4 if isinstance(address, ipaddress.IPv4Address) else _WIDE_V6
        return str(ipaddress.ip_network((address, wide), strict=False))
    return network
