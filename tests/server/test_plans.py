"""What destroys is done once, and only as it was shown."""

from __future__ import annotations

import pytest

from opencode_fleet import plans as plans_module
from opencode_fleet.errors import Refused
from opencode_fleet.plans import Deed, Plans

UNDO = Deed("undo", ("laptop", "ses_1"))
AS_IT_IS = frozenset({"as it is"})


def test_a_plan_is_used_once_and_then_tells_what_it_did() -> None:
    plans = Plans()
    handle = plans.propose(UNDO, AS_IT_IS)
    assert plans.used(handle) is None
    plans.use(handle, UNDO, AS_IT_IS)
    assert plans.used(handle) == "how it ended was not heard yet"
    with pytest.raises(Refused, match="is used already; nothing was done again"):
        plans.use(handle, UNDO, AS_IT_IS)
    plans.finish(handle, "took it back")
    assert plans.used(handle) == "took it back"


@pytest.mark.parametrize(
    "other", [Deed("archive", UNDO.where), Deed("undo", ("laptop", "ses_2")), Deed("undo", ("desk", "ses_1"))]
)
def test_a_plan_is_for_just_one_deed(other: Deed) -> None:
    plans = Plans()
    handle = plans.propose(UNDO, AS_IT_IS)
    with pytest.raises(Refused, match="is for something else"):
        plans.use(handle, other, AS_IT_IS)
    assert plans.used(handle) is None


def test_a_plan_is_refused_once_the_thing_has_changed() -> None:
    plans = Plans()
    handle = plans.propose(UNDO, AS_IT_IS)
    with pytest.raises(Refused, match="has changed since it was shown; nothing was done"):
        plans.use(handle, UNDO, frozenset({"another message came"}))
    assert plans.used(handle) is None


def test_a_plan_holds_where_some_of_it_is_gone_and_not_where_there_is_more() -> None:
    plans = Plans()
    handle = plans.propose(UNDO, frozenset({"a", "b"}))
    with pytest.raises(Refused, match="has changed since it was shown"):
        plans.use(handle, UNDO, frozenset({"b", "c"}))
    plans.use(handle, UNDO, frozenset({"b"}))


@pytest.mark.parametrize("handle", ["p00000000", "undo", "", "p" * 9, "../../x"])
def test_a_forged_handle_is_no_plan(handle: str) -> None:
    with pytest.raises(Refused, match="there is no plan"):
        Plans().used(handle)


def test_a_plan_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = Plans()
    handle = plans.propose(UNDO, AS_IT_IS)
    monkeypatch.setattr(plans_module, "GOOD_FOR", -1.0)
    with pytest.raises(Refused, match="ten minutes"):
        plans.use(handle, UNDO, AS_IT_IS)


def test_only_so_many_plans_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_module, "MAX_PLANS", 2)
    plans = Plans()
    first, *others = [plans.propose(UNDO, frozenset({str(number)})) for number in range(3)]
    with pytest.raises(Refused, match="there is no plan"):
        plans.used(first)
    assert [plans.used(handle) for handle in others] == [None, None]
