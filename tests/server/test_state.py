"""What one agent does, told by its events: in whatever order and shape they come.

The events are OpenCode 1's as they come over the wire, through its decoder.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.agents.opencode1.decoder import Decoder
from opencode_fleet.model import Permission, Runs, Session, Status
from opencode_fleet.state import MAX_LIVE_PARTS, DirectoryState

if TYPE_CHECKING:
    import pytest

    from opencode_fleet import events as events_module

ROOT, CHILD, OTHER = "ses_root", "ses_child", "ses_other"
NOTHING = Runs(statuses={}, asks=[])
Event = dict[str, Any]


class Told(DirectoryState):
    """A state that is told the events of one stream as they come over the wire."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = Decoder()

    def hear(self, *events: Event) -> None:
        for event in events:
            for decoded in self._decoder.decode(event):
                self.apply(decoded)


def event(kind: str, **properties: Any) -> Event:
    return {"type": kind, "properties": properties}


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
    return Permission(id=ask, session_id=session, action="bash")


def told(*events: Event) -> Told:
    state = Told()
    state.hear(*events)
    return state


def decoded(events: list[Event]) -> list[events_module.Event]:
    decoder = Decoder()
    return [each for event in events for each in decoder.decode(event)]


def asks(state: DirectoryState, root: str | None = None) -> list[str]:
    return [ask.id for ask in state.pending_asks(root)]


def test_a_session_is_busy_from_its_status_to_its_idle() -> None:
    state = told(status(ROOT, "busy"))
    assert state.is_busy(ROOT)
    state.hear(status(ROOT, "retry"))
    assert [each.kind for each in state.retries()] == ["retry"]
    state.hear(event("session.idle", sessionID=ROOT))
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
    state.hear(event("permission.replied", sessionID=ROOT, requestID="per_1", reply="once"))
    assert asks(state) == ["per_2"]
    state.settled("per_2")
    assert asks(state) == []


def test_an_ask_of_a_turn_that_ended_stays_stale_when_its_session_runs_again() -> None:
    state = told(status(ROOT, "busy"), asked("per_1", ROOT), status(ROOT, "idle"), status(ROOT, "busy"))
    assert asks(state) == []
    state.refresh(Runs(statuses={ROOT: Status()}, asks=[permission("per_1", ROOT)]))
    assert asks(state) == []


def test_a_left_over_ask_in_a_snapshot_is_stale_and_one_of_a_running_session_is_not() -> None:
    state = Told()
    left, live = permission("per_1", ROOT), permission("per_2", OTHER)
    state.reset("/", Runs(statuses={OTHER: Status()}, asks=[left, live]), [Session(id=OTHER, directory="/")])
    assert asks(state) == ["per_2"]
    state.hear(status(ROOT, "busy"))
    assert asks(state) == ["per_2"]


def test_lists_that_are_older_than_the_events_do_not_hide_what_just_began() -> None:
    """The agent asks while the lists are under way: they say idle, and nothing asked."""
    events = [status(ROOT, "busy"), asked("per_1", ROOT)]
    state = told(*events)
    state.refresh(NOTHING)
    state.replay(decoded(events))
    assert state.is_busy(ROOT)
    assert asks(state) == ["per_1"]


def test_an_ask_that_a_list_has_and_an_older_list_of_statuses_made_stale_is_told_by_its_event() -> None:
    state = Told()
    state.refresh(Runs(statuses={}, asks=[permission("per_1", ROOT)]))
    assert asks(state) == []
    state.hear(asked("per_1", ROOT))
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
    state.hear(status(ROOT, "idle"))
    assert state.live(ROOT).text == ""


def test_a_turn_with_very_many_texts_keeps_the_newest() -> None:
    state = told(status(ROOT, "busy"))
    for number in range(MAX_LIVE_PARTS * 3):
        state.hear(text_part(ROOT, f"prt_{number}", f"text {number}"))
    newest = MAX_LIVE_PARTS * 3 - 1
    state.hear(delta(ROOT, f"prt_{newest}", " goes on"))
    assert state.live(ROOT).parts[f"prt_{newest}"] == f"text {newest} goes on"
    assert len(state.live(ROOT).parts) == MAX_LIVE_PARTS


def test_what_runs_and_is_silent_is_quiet_until_it_is_heard_of_and_an_idle_one_never_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state = told(status(ROOT, "busy"), status(OTHER, "busy"), status(OTHER, "idle"))
    assert not state.is_quiet(8)
    now += 8
    assert state.is_quiet(8)
    state.hear(text_part(ROOT, "prt_1", "a word"))
    assert not state.is_quiet(8)
    now += 8
    state.hear(text_part(OTHER, "prt_2", "of another session"))
    assert state.is_quiet(8)
    state.hear(status(ROOT, "idle"))
    now += 8
    assert not state.is_quiet(8)


def test_how_an_ask_was_settled_is_remembered() -> None:
    state = told(status(ROOT, "busy"), asked("per_1", ROOT))
    state.hear(event("permission.replied", sessionID=ROOT, requestID="per_1", reply="always"))
    assert state.settled_how == {"per_1": "always"}


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
SENSELESS: st.SearchStrategy[Event] = st.builds(
    lambda kind, properties: {"type": kind, "properties": properties},
    st.sampled_from(sorted(Decoder._HANDLERS)),
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
    state.replay(decoded(events))
    assert (set(state.statuses), asks(state)) == before
