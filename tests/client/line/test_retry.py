from __future__ import annotations

import pytest

from opencode_connected.line.errors import ForwardRefused
from opencode_connected.line.ports import PortChoice
from opencode_connected.line.retry import RetrySchedule


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless its one element is set."""
    now = [1000.0]
    monkeypatch.setattr("opencode_connected.line.retry.time.monotonic", lambda: now[0])
    return now


def test_the_first_try_is_quick_then_several_a_second_then_ever_fewer(clock: list[float]) -> None:
    schedule = RetrySchedule()
    assert 0.02 <= schedule.delay(permanent=False) <= 0.2
    for away, longest in ((0, 0.45), (27, 0.45), (60, 1), (90, 1.5), (600, 10), (900, 15), (90_000, 15)):
        clock[0] = 1000 + away
        pauses = [schedule.delay(permanent=False) for _ in range(100)]
        assert 0.55 * longest <= min(pauses) < 0.7 * longest
        assert 0.9 * longest < max(pauses) <= longest


def test_what_a_try_took_is_part_of_the_pause(clock: list[float]) -> None:
    schedule = RetrySchedule()
    schedule.delay(permanent=False)
    clock[0] += 900
    assert 3.25 <= schedule.delay(permanent=False, took=5) <= 10
    assert 0.02 <= schedule.delay(permanent=False, took=60) <= 0.2


def test_a_port_that_may_be_free_in_a_moment_is_asked_for_every_few_seconds(clock: list[float]) -> None:
    schedule = RetrySchedule()
    schedule.delay(permanent=False, least=4)
    assert 2.2 <= schedule.delay(permanent=False, least=4) <= 4
    clock[0] += 900
    assert schedule.delay(permanent=False, least=4) > 8


def test_three_hundred_clients_do_not_come_back_at_one_moment(clock: list[float]) -> None:
    tries = []
    for _ in range(300):
        clock[0] = 1000.0
        schedule = RetrySchedule()
        while clock[0] < 1090:  # each lives through the same outage, and comes back with its first try after that
            clock[0] += schedule.delay(permanent=False)
        tries.append(clock[0] - 1090)

    assert max(tries) <= 1.5
    tenths = [sum(int(later * 10) == tenth for later in tries) for tenth in range(15)]
    assert max(tenths) < 60, tenths


def test_hope_begins_anew_after_a_reset(clock: list[float]) -> None:
    schedule = RetrySchedule()
    schedule.delay(permanent=False)
    clock[0] += 1000
    assert schedule.delay(permanent=False) > 8

    schedule.reset()

    assert schedule.delay(permanent=False) <= 0.2


def test_a_change_of_the_network_is_used_at_once_whatever_was_wrong(clock: list[float]) -> None:
    schedule = RetrySchedule()
    schedule.delay(permanent=False)
    clock[0] += 1000
    schedule.hurry()

    assert schedule.delay(permanent=True) == 0
    assert 0.02 <= schedule.delay(permanent=False) <= 0.2


def test_what_a_person_has_to_mend_is_tried_once_a_minute() -> None:
    assert RetrySchedule().delay(permanent=True) == 60


def test_without_a_block_any_port_is_asked_for_and_a_refusal_is_final() -> None:
    choice = PortChoice(())

    assert choice.port == 0
    assert not choice.refused(ForwardRefused(0, None))


def test_a_relay_that_offers_ports_is_asked_for_one_of_them() -> None:
    choice = PortChoice(())

    assert choice.refused(ForwardRefused(0, (10001, 10002)))
    assert choice.port in (10001, 10002)


def test_every_port_of_a_block_is_tried_once_and_a_good_one_kept() -> None:
    block = tuple(range(10000, 10010))
    choice = PortChoice(block)
    tried = [choice.port]
    while choice.refused(ForwardRefused(choice.port, None)):
        tried.append(choice.port)
    assert sorted(tried) == list(block)

    good = choice.port
    choice.worked()
    assert choice.port == good


def test_a_block_without_a_free_port_is_an_error_that_may_pass() -> None:
    choice = PortChoice(())

    assert not choice.refused(ForwardRefused(0, ()))
    assert not ForwardRefused(0, ()).permanent
    assert ForwardRefused(0, None).permanent
