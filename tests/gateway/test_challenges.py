"""What passkeys sign: made here alone, for one purpose."""

from __future__ import annotations

import pytest

from opencode_gateway.sign_in.challenges import Challenges, Stale, claimed


def test_a_challenge_of_another_process_or_cut_is_none() -> None:
    ours, others = Challenges(), Challenges()
    made = others.make("session", ("login",))
    for challenge in (made, b"", ours.make("session", ("login",))[:-1]):
        with pytest.raises(Stale):
            ours.check(challenge, "session", ("login",))


def test_claims_that_read_alike_are_not_alike() -> None:
    assert claimed(("decision", "a3", "digest", "a,b")) != claimed(("decision", "a3", "digest", ["a", "b"]))
