"""What a person was told, beside what really reached the machines; `faults` says where the two differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACCEPTED = "accepted"
UNKNOWN = "unknown"


class Machine(Protocol):
    """A machine of the run, looked at behind all that breaks."""

    def times_delivered(self, text: str) -> int:
        """Return how many messages with this text it has."""

    def applied(self) -> Iterable[tuple[str, str, str]]:
        """Return the decisions that it applied: the ask's id, what that said then, and the decision."""

    def unsettled(self) -> Iterable[str]:
        """Return the ids of the asks that it still waits for."""


@dataclass
class Ledger:
    """Filled in during a run, by what calls answered alone."""

    sent: dict[tuple[str, str], str] = field(default_factory=dict)
    """What was told of each prompt, by machine and text: `ACCEPTED` or `UNKNOWN`."""
    turns: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many prompts were accepted for each session, by machine and session."""
    seen: set[str] = field(default_factory=set)
    """The asks that a cursor told of."""
    meant: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """For each ask, what the person had before them when they decided, and the decision."""
    ends: Counter[tuple[str, str, str, float]] = field(default_factory=Counter)
    """How often each end was told: to whom, machine, session, and when it was."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How calls came out, in a word each, for the report."""
    unclear: list[str] = field(default_factory=list)
    """What was told that does not say what became of a message."""

    def end(self, watcher: str, row: Mapping[str, Any]) -> None:
        """Note an end as `wait` told it."""
        if row["result"] == "away":
            return
        if "session" not in row:
            self.unclear.append(f"an end of no session: {dict(row)}")
            return
        self.ends[watcher, row["instance"], row["session"], row["at"]] += 1

    def ends_told(self, watcher: str) -> Counter[tuple[str, str]]:
        """Return how many ends of each session one watcher was told of."""
        return Counter((machine, session) for who, machine, session, _ in self.ends if who == watcher)

    def unheard(self) -> list[str]:
        """Return in words which sessions had more prompts than ends that any cursor told of."""
        told = Counter((machine, session) for machine, session, _ in {end[1:] for end in self.ends})
        return [
            f"{count - told[place]} of {count} ends of {place} came by no cursor"
            for place, count in self.turns.items()
            if told[place] < count
        ]

    def is_settled(self, machines: Mapping[str, Machine]) -> bool:
        """Tell whether what was accepted has arrived and ended, and nothing waits for a person any more."""
        return (
            not self.unheard()
            and all(
                machines[name].times_delivered(text) for (name, text), told in self.sent.items() if told == ACCEPTED
            )
            and not any(list(machine.unsettled()) for machine in machines.values())
        )

    def faults(self, machines: Mapping[str, Machine]) -> list[str]:
        """Return in words what was missed, doubled or taken for something else."""
        return [
            *(f"unclear: {each}" for each in self.unclear),
            *self._of_prompts(machines),
            *(fault for machine in machines.values() for fault in self._of_asks(machine)),
            *self.unheard(),
            *(f"told {times} times by one cursor: {end}" for end, times in self.ends.items() if times > 1),
        ]

    def _of_prompts(self, machines: Mapping[str, Machine]) -> Iterable[str]:
        for (name, text), told in self.sent.items():
            times = machines[name].times_delivered(text)
            if times > 1 or (told == ACCEPTED and not times):
                yield f"{text!r} of {name} was told {told} and delivered {times} times"

    def _of_asks(self, machine: Machine) -> Iterable[str]:
        for ask in machine.unsettled():
            yield f"{ask} waits and no cursor told of it" if ask not in self.seen else f"{ask} was never settled"
        for ask, said, decision in machine.applied():
            if ask not in self.seen:
                yield f"{ask} was decided before any cursor told of it"
            if (said, decision) not in self.meant.get(ask, set()):
                yield f"{decision} was applied to {said!r} of {ask}; the person decided {self.meant.get(ask)}"
        for ask, times in Counter(ask for ask, _, _ in machine.applied()).items():
            if times > 1:
                yield f"{ask} was decided {times} times"
