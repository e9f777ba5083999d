"""Tells people what must be told. Of several copies one sends: whoever has the lock in the sender's directory.

What is sent is looked up in the journal right before: nothing goes out that was settled by then.
A kill between claim and mark makes a message go out again, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from opencode_common.database import DatabaseError
from opencode_notify.collecting import collect, compose
from opencode_notify.due import still_waits
from opencode_notify.notice import Receipt
from opencode_notify.words import notice_of, notice_of_withdrawal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_journal.journal import Journal
    from opencode_journal.leader import Leader
    from opencode_notify.delivery import Delivery
    from opencode_notify.due import Item
    from opencode_notify.ledger import Ledger
    from opencode_notify.notice import Notice, Outlet
    from opencode_notify.rules import OutletSettings, ToldPerson

    Drop = Callable[[str, OutletSettings], bool]

SEND_SECONDS: Final = 20.0
"""An outlet that has not answered by then has failed."""
LEASE_SECONDS: Final = SEND_SECONDS + 10
AT_ONCE: Final = 16
"""Outlets that are spoken to at once, and each by one message."""
MAX_ATTEMPTS: Final = 12
"""With these pauses: about two hours."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 1_800.0
LONGEST_WAIT: Final = 90_000.0
"""Nothing is put off for longer: an outlet may ask for a day, and quiet hours end within one."""
_TICK_SECONDS: Final = 1.0
_PRUNE_SECONDS: Final = 3_600.0
_log = logging.getLogger(__name__)


def pause_after(attempts: int, draw: Callable[[], float] = random.random) -> float:
    """Return seconds until the next attempt: twice as long each time, and drawn from the upper half of that."""
    whole = min(FIRST_PAUSE * 2.0 ** (attempts - 1), LONGEST_PAUSE)
    return whole * (0.5 + draw() / 2)


class NoticeSender:
    """One copy of it.

    Args:
        journal: of the server; it is only read.
        ledger: what was told; all copies share its file.
        leader: which copy sends.
        people: who is told what, as it is now.
        outlet_of: the outlet of such settings; raises `ValueError` in words for settings that are none.
        page_of: the address of a message's page by its id, or empty. It decides nothing by being fetched.
        relay: its name, for who shares an outlet with another one.
        drop: takes an outlet that is gone out of the list, and returns whether it did; it may wait for a disk.
        clock: epoch seconds.
    """

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        leader: Leader,
        people: Callable[[], Mapping[str, ToldPerson]],
        outlet_of: Callable[[dict[str, Any]], Outlet],
        *,
        page_of: Callable[[str], str] = lambda _message: "",
        relay: str = "",
        drop: Drop = lambda _person, _settings: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._leader = leader
        self._people = people
        self._outlet_of = outlet_of
        self._page_of = page_of
        self._relay = relay
        self._drop = drop
        self._clock = clock
        self._owner = secrets.token_hex(8)
        self._has_led = False
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._done = asyncio.Event()
        self._prune_at = 0.0
        self._stepped_at = 0.0
        self._look_at = 0.0
        """Monotonic."""
        self._trouble = ""
        self._listed: Mapping[str, ToldPerson] | None = None

    async def run(self) -> None:
        """Send until this is cancelled; what is under way then is ended, and made again by the next copy."""
        looks = True
        try:
            while True:
                self._done.clear()
                changed = asyncio.create_task(self._journal.changed())
                is_more = self._step_or_say(looks=looks)
                if is_more:
                    changed.cancel()
                    await asyncio.sleep(0)
                else:
                    looks = await self._wait(changed)
        finally:
            await self._end_tasks()

    async def _wait(self, changed: asyncio.Task[object]) -> bool:
        """Wait for news of the journal, a second, or the end of a delivery: only that gives no reason to look."""
        done = asyncio.create_task(self._done.wait())
        try:
            await asyncio.wait([changed, done], timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return changed.done() or not done.done() or time.monotonic() >= self._look_at
        finally:
            changed.cancel()
            done.cancel()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _step_or_say(self, *, looks: bool) -> bool:
        try:
            is_more = self.step(looks=looks)
        except DatabaseError as error:
            self._say(f"what was told cannot be kept, so nothing is sent: {error}")
            return False
        if self._trouble and self._journal.is_kept:
            self._trouble = ""
            _log.info("people are told again what happens")
        return is_more

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble

    def step(self, *, looks: bool = True) -> bool:
        """Do what is due, if this copy leads; return whether there is more at once. Deliveries go on as tasks.

        `looks`: whether the journal may have something new.
        """
        if not self._leader.is_leader:
            self._has_led = False
            return False
        if not self._journal.is_kept:
            # In memory nothing is known of what waits: all would look as if it were settled.
            self._say(f"the journal cannot be read, so nothing is sent: {self._journal.trouble}")
            return False
        if not self._has_led:
            self._ledger.release_others(self._owner)
            self._has_led = looks = True
            self._ledger.bring_forward(self._clock() + LONGEST_WAIT, self._clock())
        people, now = self._people(), self._clock()
        if now < self._stepped_at:
            # A clock that was wrong when the machine began: what waits for its time would wait for days, or years.
            self._ledger.bring_forward(now, now)
            self._prune_at = min(self._prune_at, now + _PRUNE_SECONDS)
        self._stepped_at = now
        if people is not self._listed:
            self._listed = people
            self._ledger.keep_outlets({(name, each.name) for name in people for each in people[name].outlets})
        is_more = False
        if looks:
            is_more = collect(self._journal, self._ledger, people, now)
            self._look_at = time.monotonic() + _TICK_SECONDS
        compose(self._ledger, people, now)
        self._begin_deliveries(people)
        if now >= self._prune_at:
            self._ledger.prune(people, now)
            self._prune_at = now + _PRUNE_SECONDS
        return is_more

    async def settled(self) -> None:
        """Wait for the deliveries that have begun."""
        await asyncio.gather(*self._tasks.values())

    def _begin_deliveries(self, people: Mapping[str, ToldPerson]) -> None:
        while len(self._tasks) < AT_ONCE:
            delivery = self._ledger.claim(self._owner, self._clock(), LEASE_SECONDS, self._tasks.keys())
            if delivery is None:
                return
            place = (delivery.person, delivery.outlet)
            task = asyncio.create_task(self._deliver(delivery, people.get(delivery.person)))
            self._tasks[place] = task
            task.add_done_callback(lambda done, place=place: self._over(place, done))  # type: ignore[misc]

    def _over(self, place: tuple[str, str], done: asyncio.Task[None]) -> None:
        self._tasks.pop(place, None)
        self._done.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            # Its lease runs out, and it is made again.
            _log.error("%s of %s: a delivery failed: %s", place[1], place[0], type(error).__name__)

    async def _deliver(self, delivery: Delivery, person: ToldPerson | None) -> None:
        settings = person.outlet(delivery.outlet) if person is not None else None
        if person is None or settings is None:
            self._give_up(delivery, "it is not in the list any more")
            return
        try:
            # In a thread: what a kind needs is loaded by the first, and Apprise takes half a second.
            outlet = await asyncio.to_thread(self._outlet_of, settings.of_kind())
        except ValueError as error:
            self._note(delivery, Receipt.of_failure(str(error), gone=True))
            return
        if delivery.state == "withdraw":
            await self._withdraw(delivery, person, outlet)
            return
        now = self._clock()
        if (quiet_until := person.rules.quiet_until(now)) is not None:
            self._ledger.put_back(delivery, self._owner, quiet_until)
            return
        items = self._waiting(delivery)
        if not items:
            # It is dropped once the ledger has seen that, too.
            self._ledger.put_back(delivery, self._owner, now + _TICK_SECONDS)
            return
        url = self._page_of(delivery.message)
        notice = notice_of(delivery.message, items, person.rules, url=url, relay=self._relay)
        receipt = await _sent(outlet, notice)
        if receipt.gone and await asyncio.to_thread(self._drop, delivery.person, settings):
            self._give_up(delivery, receipt.reason)
            _log.info("outlet %s of %s was removed: %s", delivery.outlet, delivery.person, receipt.reason)
            return
        self._note(delivery, receipt)

    def _give_up(self, delivery: Delivery, reason: str) -> None:
        """Hand on what waits for an outlet that is in no list."""
        now = self._clock()
        with self._ledger.together():
            self._ledger.failed(delivery, self._owner, reason, now, again_at=None)
            self._ledger.disable(delivery, reason, now)
            self._ledger.forget_outlet(delivery.person, delivery.outlet)

    def _waiting(self, delivery: Delivery) -> list[Item]:
        """Return what a message still has to tell, as the journal has it now."""
        items = self._ledger.items_of(delivery.message)
        return [item for item in items if not item.is_open or still_waits(self._journal, item)]

    async def _withdraw(self, delivery: Delivery, person: ToldPerson, outlet: Outlet) -> None:
        if person.rules.withdraw:
            notice = notice_of_withdrawal(delivery.message, self._relay)
            # A message that stays is not worth a second attempt: its page says who decided.
            with suppress(Exception):
                async with asyncio.timeout(SEND_SECONDS):
                    await outlet.withdraw(notice)
        self._ledger.withdrawn(delivery, self._owner)

    def _note(self, delivery: Delivery, receipt: Receipt) -> None:
        now = self._clock()
        with self._ledger.together():
            if receipt.accepted:
                self._ledger.accepted(delivery, self._owner, now)
                return
            again_at = None
            if receipt.retry and not receipt.gone and delivery.attempts < MAX_ATTEMPTS:
                again_at = now + max(pause_after(delivery.attempts), receipt.retry_after or 0.0)
            self._ledger.failed(delivery, self._owner, receipt.reason, now, again_at=again_at)
            if receipt.gone:
                self._ledger.disable(delivery, receipt.reason, now)
        where, reason = f"outlet {delivery.outlet} of {delivery.person}", receipt.reason
        if receipt.gone:
            _log.warning(
                "%s is switched off: %s; add it anew with `sudo opencode-gateway notify add %s %s`",
                where,
                reason,
                delivery.person,
                delivery.outlet,
            )
        else:
            _log.warning("%s did not take a message: %s", where, reason)


async def _sent(outlet: Outlet, notice: Notice) -> Receipt:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            return await outlet.send(notice)
    except TimeoutError:
        return Receipt.of_failure(f"it did not answer within {SEND_SECONDS:.0f} s", retry=True)
    except Exception as error:  # noqa: BLE001 # an outlet may be somebody else's code; its words may hold secrets
        return Receipt.of_failure(f"it failed with {type(error).__name__}", retry=True)
