"""From the journal to messages: what is due is added to the ledger, put together, and handed to outlets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_notify.due import ended, is_wanted, waiting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from opencode_journal.journal import Journal
    from opencode_notify.due import Item
    from opencode_notify.ledger import Ledger
    from opencode_notify.rules import ToldPerson

_MINUTE: Final = 60.0


def collect(journal: Journal, ledger: Ledger, people: Mapping[str, ToldPerson], now: float) -> bool:
    """Add what is new and settle what waits no more; return whether more ended that was not read yet.

    It is added together with up to where it was read: a kill before or after loses nothing.
    """
    open_now = waiting(journal)
    cursor, told_until = ledger.read_until()
    ends = ended(journal, cursor, told_until, ledger.started())
    with ledger.together():
        for name, person in people.items():
            ledger.settle(name, open_now.keys(), now)
            ledger.reopen(name, open_now.keys())
            if person.outlets:
                ledger.add(name, [item for item in open_now.values() if is_wanted(person.rules, item)], now)
                ledger.add(name, [item for item in ends.items if is_wanted(person.rules, item)], now)
        ledger.note_read(ends)
    return not ends.is_all


def compose(ledger: Ledger, people: Mapping[str, ToldPerson], now: float) -> None:
    """Make messages of what no message tells, and hand to the next outlet what the ones before did not bring."""
    with ledger.together():
        for name, person in people.items():
            if person.rules.quiet_until(now) is not None:
                continue
            usable = [each.name for each in person.outlets if each.name not in ledger.disabled(name)]
            if not usable:
                continue
            for items in _grouped(ledger, name, person, now):
                ledger.compose(name, items, usable[0], now)
            for message, tried in ledger.refused(name).items():
                _hand_on(ledger, name, message, tried=tried, usable=usable, now=now)
            if person.rules.escalate_after_minutes is not None:
                before = now - person.rules.escalate_after_minutes * _MINUTE
                for message, tried in ledger.unopened(name, before).items():
                    _hand_on(ledger, name, message, tried=tried, usable=usable, now=now)


def _grouped(ledger: Ledger, name: str, person: ToldPerson, now: float) -> list[list[Item]]:
    untold = ledger.untold(name)
    if not untold:
        return []
    if not person.rules.grouping_seconds:
        return [[item] for item in untold]
    # A clock that was set back makes nobody wait.
    is_too_early = 0 <= now - ledger.told_last(name) < person.rules.grouping_seconds
    return [] if is_too_early else [untold]


def _hand_on(
    ledger: Ledger, name: str, message: str, *, tried: Collection[str], usable: Collection[str], now: float
) -> None:
    after = next((outlet for outlet in usable if outlet not in tried), None)
    if after is not None:
        ledger.hand_over(message, name, after, now)
