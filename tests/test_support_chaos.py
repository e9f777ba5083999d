"""The ledger of a run with faults finds whatever is missed, doubled or mistaken, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.chaos.ledger import ACCEPTED, UNKNOWN, Ledger


@dataclass
class FakeRecord:
    """A machine's record, as a test wants it."""

    delivered: list[str] = field(default_factory=list)
    decided: list[tuple[str, str, str]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def times_delivered(self, text: str) -> int:
        return self.delivered.count(text)

    def applied(self) -> list[tuple[str, str, str]]:
        return self.decided

    def unsettled(self) -> list[str]:
        return self.waiting


def ledger() -> Ledger:
    """Return that of a person who sent one prompt and decided one ask."""
    return Ledger(sent={("laptop", "hello"): ACCEPTED}, seen={"per_1"}, meant={"per_1": {("bash ls", "once")}})


def record() -> FakeRecord:
    return FakeRecord(delivered=["hello"], decided=[("per_1", "bash ls", "once")])


def test_a_run_in_which_all_went_well_has_no_faults() -> None:
    book = ledger()
    book.end("watcher", {"result": "done", "instance": "laptop", "session": "ses_1", "at": 1.0})
    book.end("watcher", {"result": "done", "instance": "laptop", "session": "ses_1", "at": 2.0})
    assert book.faults({"laptop": record()}) == []
    assert book.is_settled({"laptop": record()})
    assert not book.is_settled({"laptop": FakeRecord()})
    assert not book.is_settled({"laptop": FakeRecord(["hello"], waiting=["per_1"])})
    assert book.ends_told("watcher") == {("laptop", "ses_1"): 2}


def test_prompts_that_are_missing_or_doubled_are_faults() -> None:
    missing, doubled = record(), record()
    missing.delivered.clear()
    doubled.delivered.append("hello")
    assert ledger().faults({"laptop": missing}) == ["'hello' of laptop was told accepted and delivered 0 times"]
    assert ledger().faults({"laptop": doubled}) == ["'hello' of laptop was told accepted and delivered 2 times"]


def test_a_prompt_of_which_nobody_knows_may_be_missing_and_not_doubled() -> None:
    book = ledger()
    book.sent["laptop", "hello"] = UNKNOWN
    missing, doubled = record(), record()
    missing.delivered.clear()
    doubled.delivered.append("hello")
    assert book.faults({"laptop": missing}) == []
    assert book.faults({"laptop": doubled}) == ["'hello' of laptop was told unknown and delivered 2 times"]


def test_a_decision_on_what_was_not_shown_and_one_that_counts_twice_are_faults() -> None:
    changed, twice = record(), record()
    changed.decided = [("per_1", "bash rm", "once")]
    twice.decided *= 2
    (fault,) = ledger().faults({"laptop": changed})
    assert fault.startswith("once was applied to 'bash rm' of per_1; the person decided")
    assert ledger().faults({"laptop": twice}) == ["per_1 was decided 2 times"]


def test_asks_that_no_cursor_told_of_and_that_nobody_could_settle_are_faults() -> None:
    unseen, unsettled = FakeRecord(["hello"], waiting=["per_2"]), FakeRecord(["hello"], waiting=["per_1"])
    assert ledger().faults({"laptop": unseen}) == ["per_2 waits and no cursor told of it"]
    assert ledger().faults({"laptop": unsettled}) == ["per_1 was never settled"]


def test_an_end_that_one_cursor_tells_twice_and_an_error_that_leaves_doubt_are_faults() -> None:
    book = ledger()
    for _ in range(2):
        book.end("watcher", {"result": "failed", "instance": "laptop", "session": "ses_1", "at": 1.0})
    book.unclear.append("the line broke")
    told, unclear = reversed(book.faults({"laptop": record()}))
    assert told.startswith("told 2 times by one cursor: ")
    assert unclear == "unclear: the line broke"


def test_the_end_of_an_accepted_prompt_that_no_cursor_tells_is_a_fault() -> None:
    book = ledger()
    book.turns["laptop", "ses_1"] = 2
    book.end("one", {"result": "done", "instance": "laptop", "session": "ses_1", "at": 1.0})
    book.end("other", {"result": "done", "instance": "laptop", "session": "ses_1", "at": 1.0})
    (fault,) = book.faults({"laptop": record()})
    assert fault == "1 of 2 ends of ('laptop', 'ses_1') came by no cursor"
    assert not book.is_settled({"laptop": record()})
    book.end("other", {"result": "failed", "instance": "laptop", "session": "ses_1", "at": 2.0})
    assert book.faults({"laptop": record()}) == []
