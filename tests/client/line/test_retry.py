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


def test_the_first_try_is_quick_then_every_half_second_for_a_minute_then_ever_fewer(clock: list[float]) -> None:
    schedule = RetrySchedule()
    assert 0.02 <= schedule.delay(permanent=False) <= 0.2
    for _ in range(100):
        assert 0.25 <= schedule.delay(permanent=False) <= 0.45

    clock[0] += 60
    for longest in (1, 2, 4, 8, 15, 15, 15):
        assert 0.8 * longest <= schedule.delay(permanent=False) <= longest


def test_hope_begins_anew_after_a_reset(clock: list[float]) -> None:
    schedule = RetrySchedule()
    schedule.delay(permanent=False)
    clock[0] += 1000
    assert schedule.delay(permanent=False) > 0.6

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
