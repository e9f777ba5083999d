"""When a relay counts as silent. The clock is the test's."""

from __future__ import annotations

from opencode_connected.line.liveness import Liveness


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_an_answer_is_overdue_after_so_much_silence_and_not_so_much_waiting() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    clock.passes(4)
    with liveness.asking():
        assert liveness.deadline(6) == 1010
        clock.passes(5)
        liveness.heard()
        assert liveness.deadline(6) == 1015
        clock.passes(170)
        liveness.heard()
        assert liveness.deadline(6) == 1004 + 180, "however much is heard, some time there must be an answer"
    with liveness.asking():
        assert liveness.deadline(6) == 1185


def test_a_relay_that_beats_is_late_after_one_beat_too_few() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    liveness.heard()
    liveness.beat()
    clock.passes(2.5)
    assert not liveness.is_late()
    clock.passes(1)
    assert liveness.is_late()
    liveness.heard()
    assert not liveness.is_late()


def test_another_relay_is_late_only_with_an_answer() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    clock.passes(60)
    assert not liveness.is_late()
    with liveness.asking():
        clock.passes(0.4)
        assert not liveness.is_late()
        clock.passes(0.2)
        assert liveness.is_late()
        liveness.heard()
        assert not liveness.is_late()
    clock.passes(60)
    assert not liveness.is_late()


def test_an_answer_that_took_longer_than_a_probe_waited_behind_data() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    assert not liveness.is_full()
    with liveness.asking():
        clock.passes(3.5)
        assert not liveness.is_full()
        clock.passes(1)
        assert liveness.is_full()
    assert not liveness.is_full()


def test_on_a_long_line_a_vain_probe_is_late_and_did_not_wait_behind_data() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    for took in (2.5, 2.25, 2.75):  # there and back takes more than a second
        with liveness.asking():
            clock.passes(took)
            liveness.carried()
    with liveness.asking():
        clock.passes(3 + 1.25)
        assert not liveness.is_full(), "OpenCode is gone"
        clock.passes(0.75)
        assert not liveness.is_full()
        clock.passes(0.5)
        assert liveness.is_full()


def test_data_that_makes_a_probe_vain_is_told_on_any_line() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    with liveness.asking():
        clock.passes(30)  # all that is known of this line is how slow it is when data waits
        liveness.carried()
    with liveness.asking():
        clock.passes(6.25)
        assert liveness.is_full()
