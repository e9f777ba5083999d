"""Which of the relay's ports a tunnel asks for."""

from __future__ import annotations

from opencode_connected.line.errors import ForwardRefused
from opencode_connected.line.ports import PortChoice


def refusals_until_it_gives_up(choice: PortChoice) -> int:
    asked = {choice.port}
    count = 1
    while choice.refused(error := ForwardRefused(choice.port, None)):
        count += 1
        assert not error.permanent
        assert choice.port not in asked, "a port was asked for twice in a row of refusals"
        asked.add(choice.port)
    return count


def test_every_port_of_a_small_block_is_tried_once() -> None:
    assert refusals_until_it_gives_up(PortChoice((10001, 10002, 10003))) == 3


def test_a_relay_that_forbids_forwarding_is_not_asked_for_ten_thousand_ports() -> None:
    assert refusals_until_it_gives_up(PortChoice(tuple(range(10000, 20000)))) == 16


def test_a_port_that_worked_is_kept_and_forgives_the_refusals_before() -> None:
    choice = PortChoice(tuple(range(10000, 20000)))
    for _ in range(10):
        choice.refused(ForwardRefused(choice.port, None))
    kept = choice.port
    choice.worked()
    assert choice.port == kept
    assert refusals_until_it_gives_up(choice) == 16


def test_of_the_ports_that_the_relay_calls_free_one_is_taken_even_if_others_were_told_before() -> None:
    for told in ((), (10001, 10002), (20001, 20002)):
        choice = PortChoice(told)
        assert choice.refused(ForwardRefused(choice.port, (10007, 10008)))
        assert choice.port in (10007, 10008)


def test_a_free_port_that_somebody_was_faster_at_is_not_asked_for_again() -> None:
    choice = PortChoice(())
    choice.refused(ForwardRefused(0, (10007, 10008)))
    lost = choice.port
    assert choice.refused(ForwardRefused(lost, (10007, 10008)))
    assert {lost, choice.port} == {10007, 10008}
    assert not choice.refused(error := ForwardRefused(choice.port, (10007, 10008)))
    assert not error.permanent


def test_a_block_that_is_used_up_is_an_error_that_says_so_and_may_pass() -> None:
    choice = PortChoice((10001, 10002))
    asked = choice.port
    assert not choice.refused(error := ForwardRefused(asked, ()))
    assert "in use" in str(error)
    assert not error.permanent
    assert choice.port == asked, "the block is still the one to try later"
