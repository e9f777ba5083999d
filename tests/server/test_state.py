"""What one OpenCode does, told by its events: in whatever order and shape they come."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.state import MAX_LIVE_PARTS, InstanceState, Snapshot
from opencode_fleet.wire import Event, Permission, Session, Status

ROOT, CHILD, OTHER = "ses_root", "ses_child", "ses_other"


def event(kind: str, **properties: Any) -> Event:
    return Event(type=kind, properties=properties)


def status(session: str, kind: str) -> Event:
    return event("session.status", sessionID=session, status={"type": kind})


def created(session: str, parent: str | None = None) -> Event:
    return event("session.created", info={"id": session, "parentID": parent, "time": {"updated": 1}})


def asked(ask: str, session: str) -> Event:
    return event("permission.asked", id=ask, sessionID=session, permission="bash", patterns=["ls"])


def text_part(session: str, part: str, text: str, kind: str = "text") -> Event:
    whole = {"id": part, "messageID": "msg_1", "sessionID": session, "type": kind, "text": text}
    return event("message.part.updated", part=whole)


def delta(session: str, part: str, text: str) -> Event:
    return event("message.part.delta", sessionID=session, messageID="msg_1", partID=part, field="text", delta=text)


def permission(ask: str, session: str) -> Permission:
    return Permission.model_validate({"id": ask, "sessionID": session})


def told(*events: Event) -> InstanceState:
    state = InstanceState()
    for each in events:
        state.apply(each)
    return state


def asks(state: InstanceState, root: str | None = None) -> list[str]:
    return [ask.id for ask in state.pending_asks(root)]


def test_a_session_is_busy_from_its_status_to_its_idle() -> None:
    state = told(status(ROOT, "busy"))
    assert state.is_busy(ROOT)
    state.apply(status(ROOT, "retry"))
    assert [each.type for each in state.retries()] == ["retry"]
    state.apply(event("session.idle", sessionID=ROOT))
    assert not state.is_busy(ROOT)
    assert list(state.ran) == [ROOT]


def test_a_subagent_and_its_ask_belong_to_their_root() -> None:
    state = told(created(ROOT), created(CHILD, ROOT), status(CHILD, "busy"), asked("per_1", CHILD))
    assert state.root_of(CHILD) == ROOT
    assert state.busy_roots() == [ROOT]
    assert state.family_busy(ROOT)
    assert asks(state, ROOT) == ["per_1"]
    assert asks(state, OTHER) == []


def test_sessions_that_are_each_others_parents_end_no_loop() -> None:
    state = told(created(ROOT, CHILD), created(CHILD, ROOT), status(ROOT, "busy"))
    assert state.root_of(ROOT) in {ROOT, CHILD}
    assert state.busy_roots()


def test_an_ask_is_pending_until_it_is_settled() -> None:
    state = told(status(ROOT, "busy"), asked("per_1", ROOT), asked("per_2", ROOT))
    state.apply(event("permission.replied", sessionID=ROOT, requestID="per_1", reply="once"))
    assert asks(state) == ["per_2"]
    state.settled("per_2")
    assert asks(state) == []


def test_an_ask_of_a_turn_that_ended_stays_stale_when_its_session_runs_again() -> None:
    state = told(status(ROOT, "busy"), asked("per_1", ROOT), status(ROOT, "idle"), status(ROOT, "busy"))
    assert asks(state) == []
    state.refresh_asks([permission("per_1", ROOT)])
    assert asks(state) == []


def test_a_left_over_ask_in_a_snapshot_is_stale_and_one_of_a_running_session_is_not() -> None:
    state = InstanceState()
    left, live = permission("per_1", ROOT), permission("per_2", OTHER)
    state.reset(
        Snapshot("/", "1", {OTHER: Status(type="busy")}, [left, live], [Session.model_validate({"id": OTHER})])
    )
    assert asks(state) == ["per_2"]
    state.apply(status(ROOT, "busy"))
    assert asks(state) == ["per_2"]


def test_lists_that_are_older_than_the_events_do_not_hide_what_just_began() -> None:
    """The agent asks while the lists are under way: they say idle, and nothing asked."""
    events = [status(ROOT, "busy"), asked("per_1", ROOT)]
    state = told(*events)
    state.refresh_statuses({})
    state.refresh_asks([])
    state.replay(events)
    assert state.is_busy(ROOT)
    assert asks(state) == ["per_1"]


def test_an_ask_that_a_list_has_and_an_older_list_of_statuses_made_stale_is_told_by_its_event() -> None:
    state = InstanceState()
    state.refresh_asks([permission("per_1", ROOT)])
    assert asks(state) == []
    state.apply(asked("per_1", ROOT))
    assert asks(state) == ["per_1"]


def test_what_is_written_right_now_is_known_without_reasoning_and_without_the_users_words() -> None:
    state = told(
        status(ROOT, "busy"),
        event("message.updated", info={"id": "msg_user", "role": "user", "sessionID": ROOT}),
        event(
            "message.part.updated",
            part={"id": "prt_0", "messageID": "msg_user", "sessionID": ROOT, "type": "text", "text": "a question"},
        ),
        text_part(ROOT, "prt_1", "", "reasoning"),
        delta(ROOT, "prt_1", "secret thoughts"),
        text_part(ROOT, "prt_2", ""),
        delta(ROOT, "prt_2", "an "),
        delta(ROOT, "prt_2", "answer"),
        delta(ROOT, "prt_unknown", "nobody knows what"),
    )
    assert state.live(ROOT).text == "an answer"
    state.apply(status(ROOT, "idle"))
    assert state.live(ROOT).text == ""


def test_a_turn_with_very_many_texts_keeps_the_newest() -> None:
    state = told(status(ROOT, "busy"))
    for number in range(MAX_LIVE_PARTS * 3):
        state.apply(text_part(ROOT, f"prt_{number}", f"text {number}"))
    newest = MAX_LIVE_PARTS * 3 - 1
    state.apply(delta(ROOT, f"prt_{newest}", " goes on"))
    assert state.live(ROOT).parts[f"prt_{newest}"] == f"text {newest} goes on"
    assert len(state.live(ROOT).parts) == MAX_LIVE_PARTS


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("sessionID", "status", "info", "part", "id", "requestID", "partID", "delta", "field", "questions", "type")
SESSIONS = st.sampled_from([ROOT, CHILD, OTHER])
SENSIBLE = st.one_of(
    st.builds(status, SESSIONS, st.sampled_from(["busy", "idle", "retry"])),
    st.builds(created, SESSIONS, st.none() | SESSIONS),
    st.builds(asked, st.sampled_from(["per_1", "per_2"]), SESSIONS),
    st.builds(text_part, SESSIONS, st.sampled_from(["prt_1", "prt_2"]), st.text(max_size=5)),
    st.builds(delta, SESSIONS, st.sampled_from(["prt_1", "prt_2"]), st.text(max_size=5)),
    SESSIONS.map(lambda session: event("session.deleted", info={"id": session})),
    SESSIONS.map(lambda session: event("session.idle", sessionID=session)),
)
SENSELESS = st.builds(
    lambda kind, properties: Event(type=kind, properties=properties),
    st.sampled_from(sorted(InstanceState._HANDLERS)),
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES),
)


@given(st.lists(SENSIBLE | SENSELESS, max_size=40))
def test_no_sequence_of_events_breaks_it_and_what_it_says_holds_together(events: list[Event]) -> None:
    state = told(*events)
    for ask in state.pending_asks():
        assert state.is_busy(ask.session_id)
    assert set(state.busy_roots()) == {state.root_of(session) for session in state.statuses}
    for session in (ROOT, CHILD, OTHER):
        if not state.is_busy(session):
            assert state.live(session).text == ""
    newest = state.newest_root()
    assert newest is None or newest.parent_id is None


@given(st.lists(SENSIBLE, max_size=30))
def test_events_told_twice_leave_the_same_statuses_and_asks(events: list[Event]) -> None:
    """What came while lists were fetched may be in the lists already."""
    state = told(*events)
    before = set(state.statuses), asks(state)
    state.replay(events)
    assert (set(state.statuses), asks(state)) == before
