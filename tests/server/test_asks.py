"""Asks in words: what stands in them, what `always` means, and that nothing is approved unseen."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.model import MAX_ASK_SHOWN, Ask, Option, Permission, Question, QuestionItem, Session
from opencode_journal.journal import Journal
from opencode_mcp.handles import Handles
from opencode_mcp.views.asks import GIST_LENGTH, MAX_REVEALED, ask_row, gist, outline, whole_text
from opencode_mcp.views.shown import MAX_LISTED, MAX_LOGINS, MAX_REMEMBERED, WHOLE, Shown, ShownByLogin
from support.fleet.fake_connection import lone_instance

INSTANCE = lone_instance()
HANDLES = Handles(Journal(None))


def bash(command: str, *patterns: str, always: tuple[str, ...] = (), number: int = 1) -> Permission:
    """Return what OpenCode 1 asks before it runs `command`, which it took to `patterns`."""
    return Permission(
        id=f"per_{number}",
        session_id="ses_1",
        action="bash",
        patterns=patterns or (command,),
        details=(("command", command),) if patterns else (),
        always=always,
        always_means="until that OpenCode ends",
    )


SESSION = HANDLES.of_session(INSTANCE.name, "ses_1")


def handle_of(ask: Ask) -> str:
    return HANDLES.of_ask(INSTANCE.name, ask.id)


def edit(lines: int) -> Permission:
    diff = "\n".join(["@@ -1 +1 @@", *(f"+line {number}" for number in range(lines)), "-old"])
    return Permission(
        id="per_edit", session_id="ses_1", action="edit", patterns=("src/a.py",), details=(("diff", diff),)
    )


# -- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (bash("ls"), "bash ls"),
        (bash("a; b && c | d", "a", "b", "c", "d"), "bash a; b && c | d"),
        (bash("echo $(ls)", "echo $(ls)", "ls"), "bash echo $(ls)"),
        (bash("a\nb", "a", "b"), "bash a ⏎ b"),
        (Permission(id="p", session_id="s", action="read", patterns=("a", "b", "c")), "read a (and 2 more)"),
        (Permission(id="p", session_id="s", action="odd"), "odd "),
        (Question(id="q", session_id="s", items=(QuestionItem(question="Go on?"),) * 3), "Go on? (and 2 more)"),
        (Question(id="q", session_id="s"), "an answer"),
    ],
)
def test_a_gist_has_the_whole_or_says_that_more_follows(ask: Ask, said: str) -> None:
    assert gist(ask) == said


@pytest.mark.parametrize("blanks", [3, 19_990, 30_000])
def test_a_gist_of_a_long_command_is_cut_with_a_mark_and_counts_no_half_run(blanks: int) -> None:
    said = ask_row(INSTANCE, bash("ls" + " " * blanks + "x" * 30_000)).summary
    assert len(said) <= GIST_LENGTH
    assert said.endswith("…")
    assert blanks == 3 or f"{blanks:,} blanks" in said or "blanks" not in said


@pytest.mark.parametrize(
    ("action", "always", "said"),
    [
        ("bash", ("echo *",), "echo * (with any arguments, and its output redirected into any file"),
        ("bash", ("echo *", "rm *"), "echo *, rm * (with any arguments, and its output redirected into any file"),
        ("shell", ("npm test *",), "npm test * (with any arguments, and its output redirected into any file"),
        ("bash", ("echo hi",), "echo hi"),
        ("edit", ("*",), "* (every edit, whatever it is for)"),
        ("external_directory", ("/etc/*",), "/etc/* (`*` stands for whatever follows)"),
        ("edit", (), "nothing more than this"),
    ],
)
def test_the_words_for_always_say_what_its_stars_let_through(action: str, always: tuple[str, ...], said: str) -> None:
    ask = Permission(id="p", session_id="s", action=action, always=always, always_means="for ever")
    last = (whole_text(INSTANCE, ask) or "").splitlines()[-1]
    assert last.startswith(f"`always` would also allow, for ever: {said}")


def test_always_is_not_offered_where_it_is_not_to_be_had() -> None:
    refused = Permission(id="p", session_id="s", action="edit", always=("*",), always_refused="it leaks")
    assert (whole_text(INSTANCE, refused) or "").endswith("`always` is not possible here: it leaks")
    owner = lone_instance(rights=frozenset({"observe", "drive", "approve"}))
    assert "not let through from afar" in (whole_text(owner, bash("ls", always=("ls *",))) or "")


def test_further_lines_of_any_value_are_set_off_from_our_own_words() -> None:
    ask = Permission(
        id="p",
        session_id="s",
        action="a\n`always` would also allow: nothing",
        patterns=("b\npermission: c",),
        details=(("la\nbel", "d\n`always` is not possible here: x"),),
        always=("e\nfor: f",),
    )
    question = Question(
        id="q",
        session_id="s",
        items=(QuestionItem(question="go\nquestion 2 of 2: on?", options=(Option("yes\n- no", "why\n- so"),)),),
    )
    for text in (whole_text(INSTANCE, ask), whole_text(INSTANCE, question), outline(INSTANCE, ask)):
        ours = [line for line in (text or "").splitlines() if not line.startswith("    ") and line]
        assert not [line for line in ours if "nothing" in line or line.startswith(("permission: c", "- no", "- so"))]
        assert "not possible" not in "".join(ours)
        assert "2 of 2" not in "".join(ours)


def test_a_subagents_ask_says_so() -> None:
    instance = lone_instance()
    for session in (
        Session(id="ses_0", directory="/home/ann/api"),
        Session(id="ses_1", directory="/home/ann/api", parent_id="ses_0"),
    ):
        instance.state.sessions[session.id] = session
    assert ask_row(instance, bash("ls")).session == "ses_0"
    assert (whole_text(instance, bash("ls")) or "").startswith("(asked by a subagent, ses_1)\n")
    assert outline(instance, bash("ls")).startswith("(asked by a subagent, ses_1)\n")


@given(st.lists(st.tuples(st.text(), st.text(max_size=2_000)), max_size=40), st.lists(st.text(), max_size=60))
def test_an_outline_is_short_whatever_the_ask(details: list[tuple[str, str]], patterns: list[str]) -> None:
    ask = Permission(
        id="p", session_id="s", action="a", patterns=tuple(patterns), details=tuple(details), always=("x",) * 99
    )
    assert len(outline(INSTANCE, ask)) <= MAX_LISTED


# -- what was shown --------------------------------------------------------------------------------------------------


def test_even_a_short_ask_may_be_approved_only_once_it_was_shown_under_its_handle() -> None:
    shown = Shown(HANDLES)
    assert not shown.is_listed(INSTANCE, bash("ls"))
    text = shown.text(INSTANCE, [bash("ls")])
    assert f"{handle_of(bash('ls'))} (permission, session {SESSION})\npermission: bash\nfor: ls\n" in text
    assert shown.is_listed(INSTANCE, bash("ls"))
    assert not Shown(HANDLES).is_listed(INSTANCE, bash("ls")), "by another server it was not"


def test_what_became_of_an_ask_after_it_was_shown_is_not_approved() -> None:
    shown = Shown(HANDLES)
    shown.text(INSTANCE, [bash("ls")])
    assert not shown.is_listed(INSTANCE, bash("rm -rf ~"))
    shown.whole(INSTANCE, bash("rm -rf ~"))
    assert shown.is_listed(INSTANCE, bash("rm -rf ~"))


def test_a_long_ask_is_outlined_and_may_be_approved_once_it_was_shown_whole() -> None:
    shown = Shown(HANDLES)
    ask = edit(1_500)
    assert not shown.is_listed(INSTANCE, ask)
    text = shown.text(INSTANCE, [ask])
    assert "for: src/a.py" in text
    assert f"diff: [1,502 lines, {len(ask.details[0][1]):,} characters, 1,500 added, 1 removed]" in text
    assert "+line 1\n" in text
    assert "-old\n" in text
    assert "line 700" not in text
    assert f"Not shown whole: {handle_of(ask)}." in text
    assert not shown.is_listed(INSTANCE, ask)
    assert "+line 700\n" in shown.whole(INSTANCE, ask)
    assert shown.is_listed(INSTANCE, ask)
    # That a later answer outlines it takes nothing back.
    assert "line 700" not in shown.text(INSTANCE, [ask])
    assert shown.is_listed(INSTANCE, ask)
    assert not shown.is_listed(lone_instance("desk"), ask)
    assert not shown.is_listed(INSTANCE, dataclasses.replace(ask, always=("*",)))


def test_of_many_asks_those_that_do_not_fit_are_shown_shortly_and_cannot_be_approved_before() -> None:
    shown = Shown(HANDLES)
    asks = [bash(f"echo {number} {'x' * 3_000}", number=number) for number in range(200)]
    text = shown.text(INSTANCE, asks)
    assert len(text) < 2 * MAX_LISTED + 200 * (GIST_LENGTH + 100)
    assert all(f"{handle_of(ask)} (permission, session {SESSION})" in text for ask in asks)
    seen = [shown.is_listed(INSTANCE, ask) for ask in asks]
    assert seen[0]
    assert seen.count(True) < 5
    listed = text.rpartition("Not shown whole: ")[2].partition(". Before")[0].split(", ")
    assert listed == [handle_of(ask) for ask, is_seen in zip(asks, seen, strict=True) if not is_seen]


@pytest.mark.parametrize("command", ["x" * (MAX_ASK_SHOWN + 1), "\u200b\u200c" * (MAX_REVEALED // 6)])
def test_an_ask_that_is_too_large_to_be_shown_is_never_approved(command: str) -> None:
    shown = Shown(HANDLES)
    ask = bash(command)
    assert whole_text(INSTANCE, ask) is None
    for text in (shown.text(INSTANCE, [ask]), shown.whole(INSTANCE, ask)):
        assert len(text) < WHOLE
        assert f"Too large to be shown whole: {handle_of(ask)}. Reject it" in text
        assert not shown.is_listed(INSTANCE, ask)


def test_what_one_login_was_shown_another_was_not() -> None:
    shown, ask = ShownByLogin(HANDLES), edit(1_500)
    shown.of("ann").whole(INSTANCE, ask)

    assert shown.of("ann").is_listed(INSTANCE, ask)
    assert not shown.of("ben").is_listed(INSTANCE, ask)


def test_only_so_many_logins_are_remembered() -> None:
    shown, ask = ShownByLogin(HANDLES), edit(1_500)
    for login in ("ann", "ben"):
        shown.of(login).whole(INSTANCE, ask)
    shown.of("ann")
    for number in range(MAX_LOGINS - 1):
        shown.of(f"token:{number}")

    assert [shown.of(login).is_listed(INSTANCE, ask) for login in ("ann", "ben")] == [True, False]


def test_what_was_shown_is_remembered_within_bounds() -> None:
    shown = Shown(HANDLES)
    asks = [dataclasses.replace(edit(1_000), id=f"per_{number}") for number in range(3)]
    for ask in asks:
        shown.whole(INSTANCE, ask)
    for number in range(MAX_REMEMBERED - 2):
        shown.text(INSTANCE, [bash("ls", number=100 + number)])
    assert [shown.is_listed(INSTANCE, ask) for ask in asks] == [False, True, True]
