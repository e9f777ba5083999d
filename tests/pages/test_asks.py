"""The decision page without a browser: what it offers to whom, what it takes, and what it refuses."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest

from opencode_common.reveal import reveal
from opencode_pages.answers import MAX_REASON, MAX_TEXT
from opencode_pages.documents import AskPart
from opencode_pages.parts import NotDecided, PageDecision, Unavailable
from support.pages.fake_pages import DIGEST, EDIT, PERMISSION, QUESTION, FakePages

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

HOSTILE = '<script>fetch("/asks/a4")</script></div><button name="decision" value="always">'


def offered(answer: httpx.Response) -> list[str]:
    return re.findall(r'<button type="submit" name="decision" value="(\w+)"', answer.text)


def hidden(answer: httpx.Response) -> dict[str, str]:
    """Return what the form of an ask brings along."""
    form = answer.text.partition('<form class="ask"')[2]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


def said(answer: httpx.Response) -> str:
    """Return what an answer says, without its marks."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", answer.text)))


async def decide(
    http: httpx.AsyncClient,
    handle: str,
    fields: Mapping[str, Any] | None = None,
    /,
    *,
    form: dict[str, str] | None = None,
    **more: str,
) -> httpx.Response:
    """Send the form of an ask, by itself as it is now."""
    shown = hidden(await http.get(f"/asks/{handle}")) if form is None else form
    return await http.post(f"/asks/{handle}", data={**shown, **(fields or {}), **more})


@pytest.mark.parametrize("word", ["once", "always", "reject"])
async def test_a_word_on_a_permission_is_bound_to_what_was_shown(
    pages: FakePages, http: httpx.AsyncClient, word: str
) -> None:
    answer = await decide(http, "a3", decision=word, reason="")
    assert pages.source.decisions == [PageDecision("a3", DIGEST, word)]
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/inbox?decided={word}&ask=a3"
    assert "a3 was" in said(await http.get(answer.headers["location"]))


async def test_what_to_do_instead_goes_with_a_rejection_alone(pages: FakePages, http: httpx.AsyncClient) -> None:
    refused = await decide(http, "a3", decision="once", reason="Use make clean")
    assert refused.status_code == 400
    assert "goes with a rejection" in said(refused)
    assert ">Use make clean</textarea>" in refused.text
    assert pages.source.decisions == []
    await decide(http, "a3", decision="reject", reason="Use make clean,\r\nplease")
    assert [each.answer for each in pages.source.decisions] == ["reject: Use make clean,\nplease"]


async def test_what_to_do_instead_is_bounded_as_the_agent_has_it(pages: FakePages, http: httpx.AsyncClient) -> None:
    assert (await decide(http, "a3", decision="reject", reason="x" * (MAX_REASON + 1))).status_code == 400
    assert pages.source.decisions == []
    assert (await decide(http, "a3", decision="reject", reason="x" * MAX_REASON)).status_code == 303


async def test_what_would_be_a_message_takes_the_right_to_send_one(pages: FakePages, http: httpx.AsyncClient) -> None:
    pages.source.put(PERMISSION.model_copy(update={"reason_is_message": True}))
    assert "sent to the agent as a message" in said(await http.get("/asks/a3"))
    pages.door.allow("ann", "observe", "approve")
    assert 'name="reason"' not in (await http.get("/asks/a3")).text
    assert (await decide(http, "a3", decision="reject", reason="forged")).status_code == 400
    assert pages.source.decisions == []
    assert (await decide(http, "a3", decision="reject")).status_code == 303


async def test_who_may_not_approve_sees_all_of_it_and_decides_nothing(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    form = hidden(await http.get("/asks/a3"))
    pages.door.allow("ann", "observe", "drive")
    shown = await http.get("/asks/a3")
    assert "rm -rf build" in shown.text
    assert offered(shown) == []
    assert "capability “approve”" in said(shown)
    assert (await decide(http, "a3", form=form, decision="once")).status_code == 400
    assert pages.source.decisions == []


async def test_who_may_neither_look_nor_approve_sees_nothing(pages: FakePages, http: httpx.AsyncClient) -> None:
    pages.door.allow("ann", "drive")
    for path in ("/asks/a3", "/inbox", "/inbox/now", "/inbox/events"):
        answer = await http.get(path)
        assert answer.status_code == 403
        assert "rm -rf build" not in answer.text


async def test_who_is_not_logged_in_is_led_to_the_login(http: httpx.AsyncClient) -> None:
    http.cookies.clear()
    for path in ("/asks/a3", "/inbox", "/inbox/now", "/inbox/events", f"/told/{'0' * 20}"):
        assert (await http.get(path)).headers["location"] == "/login"
    for path in ("/asks/a3", "/leave", "/push"):
        assert (await http.post(path, data={"decision": "once"})).headers["location"] == "/login"


@pytest.mark.parametrize(
    ("changes", "buttons"),
    [
        ({"always_refused": "its owner does not let it through"}, ["reject", "once"]),
        ({"whole": False}, ["reject"]),
        ({"state": "away", "away": True, "whole": False}, []),
        ({"state": "settled", "settled": "allowed once by bob", "whole": False}, []),
    ],
)
async def test_only_what_can_be_had_is_offered_and_taken(
    pages: FakePages, http: httpx.AsyncClient, changes: dict[str, Any], buttons: list[str]
) -> None:
    form = hidden(await http.get("/asks/a3"))
    pages.source.put(PERMISSION.model_copy(update=changes))
    shown = await http.get("/asks/a3")
    assert offered(shown) == buttons
    assert ("can only be rejected" in said(shown)) == (buttons == ["reject"])
    for word in {"once", "always", "reject", "answer", "", "ONCE"} - set(buttons):
        assert (await decide(http, "a3", form=form, decision=word)).status_code in {400, 409}
    assert pages.source.decisions == []


async def test_what_was_settled_elsewhere_says_by_whom(pages: FakePages, http: httpx.AsyncClient) -> None:
    form = hidden(await http.get("/asks/a3"))
    pages.source.put(PERMISSION.model_copy(update={"state": "settled", "settled": "rejected by bob"}))
    answer = await decide(http, "a3", form=form, decision="once")
    assert answer.status_code == 409
    assert "rejected by bob" in said(answer)
    assert "nothing more was decided" in said(answer)


async def test_what_changed_since_is_shown_anew_and_not_decided(pages: FakePages, http: httpx.AsyncClient) -> None:
    form = hidden(await http.get("/asks/a3"))
    changed = (AskPart(label="command", text="rm -rf /", kind="command"),)
    pages.source.put(PERMISSION.model_copy(update={"parts": changed, "digest": "c" * 32}))
    answer = await decide(http, "a3", form=form, decision="once")
    assert answer.status_code == 409
    assert "It changed since you looked" in said(answer)
    assert "rm -rf /" in answer.text
    assert hidden(answer)["digest"] == "c" * 32
    assert pages.source.decisions == []


async def test_what_changes_in_the_last_moment_is_not_decided_either(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    def change(_decision: PageDecision) -> None:
        pages.source.put(PERMISSION.model_copy(update={"digest": "c" * 32}))

    pages.source.on_decide = change
    answer = await decide(http, "a3", decision="once")
    assert answer.status_code == 409
    assert "It changed since you looked" in said(answer)


async def test_what_is_settled_in_the_last_moment_did_not_change(pages: FakePages, http: httpx.AsyncClient) -> None:
    def settle(_decision: PageDecision) -> None:
        settled = {"state": "settled", "settled": "allowed once, by ann", "digest": "c" * 32}
        pages.source.put(PERMISSION.model_copy(update=settled))
        raise NotDecided("it was settled by somebody else meanwhile")

    pages.source.on_decide = settle
    answer = await decide(http, "a3", decision="once")
    assert answer.status_code == 409
    assert "It is settled, as it says below" in said(answer)
    assert "It changed" not in said(answer)


@pytest.mark.parametrize(
    ("error", "status"), [(NotDecided("Take a passkey to it."), 409), (Unavailable("It is not known."), 503)]
)
async def test_what_becomes_of_a_decision_otherwise_is_said(
    pages: FakePages, http: httpx.AsyncClient, error: Exception, status: int
) -> None:
    def fail(_decision: PageDecision) -> None:
        raise error

    pages.source.on_decide = fail
    answer = await decide(http, "a3", decision="reject", reason="Not so")
    assert answer.status_code == status
    assert str(error) in said(answer)
    assert ">Not so</textarea>" in answer.text


async def test_a_form_serves_for_its_ask_and_its_session_alone(pages: FakePages, http: httpx.AsyncClient) -> None:
    mine, other = [hidden(await http.get(path)) for path in ("/asks/a3", "/asks/a4")]
    forged = [
        ("a4", mine),
        ("a3", {**mine, "token": other["token"]}),
        ("a3", {**mine, "token": ""}),
        ("a3", {"digest": DIGEST}),
    ]
    for handle, form in forged:
        assert (await decide(http, handle, form=form, decision="once")).status_code == 403
    assert (await decide(http, "a3", form={**mine, "digest": EDIT.digest}, decision="once")).status_code == 409
    pages.door.let_in("bob")
    http.cookies.set("session", "session-of-bob")
    assert (await decide(http, "a3", form=mine, decision="once")).status_code == 403
    assert pages.source.decisions == []


async def test_a_form_of_another_site_is_refused(pages: FakePages, http: httpx.AsyncClient) -> None:
    form = hidden(await http.get("/asks/a3"))
    for site in ("cross-site", "same-site", "none"):
        http.headers["sec-fetch-site"] = site
        assert (await decide(http, "a3", form=form, decision="once")).status_code == 403
    assert pages.source.decisions == []


async def test_a_form_that_is_sent_twice_decides_once(pages: FakePages, http: httpx.AsyncClient) -> None:
    form = hidden(await http.get("/asks/a3"))
    assert (await decide(http, "a3", form=form, decision="once")).status_code == 303
    again = await decide(http, "a3", form=form, decision="always")
    assert again.status_code == 409
    assert "by Ann" in said(again)
    assert "It is settled, as it says below" in said(again)
    assert "Nothing was decided" not in said(again)
    assert len(pages.source.decisions) == 1


async def test_questions_are_answered_item_by_item(pages: FakePages, http: httpx.AsyncClient) -> None:
    answers = {"item-0": "1", "item-1": ["0", "2"], "text-2": " Snow\r\ngoose "}
    assert (await decide(http, "a5", answers, decision="answer")).status_code == 303
    assert [each.answer for each in pages.source.decisions] == [["next", "Linux, Windows", "Snow\ngoose"]]


async def test_a_question_is_answered_in_ones_own_words(pages: FakePages, http: httpx.AsyncClient) -> None:
    answers = {"item-0": "own", "text-0": "none", "item-1": "1", "text-1": "BSD", "text-2": "reject"}
    assert (await decide(http, "a5", answers, decision="answer")).status_code == 303
    assert [each.answer for each in pages.source.decisions] == [["none", "macOS, BSD", "reject"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"item-0": "1", "item-1": "0"},
        {"item-0": "7", "item-1": "0", "text-2": "x"},
        {"item-0": ["0", "1"], "item-1": "0", "text-2": "x"},
        {"item-0": "1", "text-0": "none", "item-1": "0", "text-2": "x"},
        {"item-0": "own", "item-1": "0", "text-2": "x"},
        {"item-0": "1", "item-1": "0", "text-2": "x" * (MAX_TEXT + 1)},
    ],
)
async def test_half_an_answer_is_none_and_what_was_typed_stays(
    pages: FakePages, http: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    answer = await decide(http, "a5", wrong, decision="answer")
    assert answer.status_code == 400
    assert re.search(r'name="item-1"\s+value="0" checked', answer.text)
    assert pages.source.decisions == []


async def test_a_question_can_be_rejected(pages: FakePages, http: httpx.AsyncClient) -> None:
    assert offered(await http.get("/asks/a5")) == ["reject", "answer"]
    await decide(http, "a5", {"text-2": "typed meanwhile"}, decision="reject")
    assert [each.answer for each in pages.source.decisions] == ["reject"]


async def test_nothing_of_an_ask_becomes_part_of_the_page(pages: FakePages, http: httpx.AsyncClient) -> None:
    texts = dict.fromkeys(("instance", "title", "summary", "directory", "subagent", "always_means"), HOSTILE)
    parts = tuple(AskPart(label=HOSTILE, text=HOSTILE + end, kind="diff") for end in ("", "\n+" + HOSTILE))
    item = QUESTION.items[0].model_copy(update={"question": HOSTILE})
    pages.source.problem = HOSTILE
    pages.source.put(
        PERMISSION.model_copy(update={**texts, "parts": parts, "always": (HOSTILE,), "session": HOSTILE})
    )
    pages.source.put(QUESTION.model_copy(update={**texts, "items": (item,)}))
    for path in ("/asks/a3", "/asks/a5", "/inbox", "/inbox/now"):
        answer = await http.get(path)
        assert HOSTILE[:8] not in answer.text.replace('<script src="/', "")
        assert "&lt;script&gt;" in answer.text
        assert answer.text.count('value="always"') == (path == "/asks/a3")


async def test_what_hides_in_an_ask_is_marked_and_told_apart(pages: FakePages, http: httpx.AsyncClient) -> None:
    text = reveal("cat \u202efoo" + "\u200b" * 9 + " p\u0430ypal \x1b[2J ⟨forged⟩")
    pages.source.put(PERMISSION.model_copy(update={"parts": (AskPart(label="command", text=text, kind="command"),)}))
    shown = (await http.get("/asks/a3")).text
    assert re.findall("<mark>(.*?)</mark>", shown) == ["⟨9 times U+200B⟩", "⟨Cyrillic: \u0430⟩"]
    assert "cat \\u202efoo" in shown
    assert "\\x1b[2J" in shown
    assert "\u202e" not in shown


async def test_an_ask_of_a_hundred_thousand_characters_is_shown_whole(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    text = "\n".join(f"echo {number:05}" for number in range(10_000))
    pages.source.put(PERMISSION.model_copy(update={"parts": (AskPart(label="command", text=text, kind="command"),)}))
    shown = await http.get("/asks/a3")
    assert text in shown.text
    assert offered(shown) == ["reject", "always", "once"]


async def test_each_line_of_a_diff_has_its_colour_by_its_sign(http: httpx.AsyncClient) -> None:
    lines = re.findall(r'class="line (\w+)">(.)', (await http.get("/asks/a4")).text)
    expected = {"added": "+", "removed": "-", "place": "@", "same": " "}
    assert lines == [(kind, expected[kind]) for kind, _ in lines]
    assert {kind for kind, _ in lines} == set(expected)


async def test_what_is_not_there_and_what_cannot_be_had_says_so(pages: FakePages, http: httpx.AsyncClient) -> None:
    for handle in ("a99", "..%2Fa3", "a3%20", "a" * 30):
        assert (await http.get(f"/asks/{handle}")).status_code == 404
    pages.source.unavailable = "The OpenCode server does not answer. Try again in a minute."
    answer = await http.get("/asks/a3")
    assert answer.status_code == 503
    assert pages.source.unavailable in said(answer)
    assert (await http.get("/inbox")).status_code == 503
    assert pages.source.unavailable in said(await http.get("/inbox"))


async def test_no_page_is_framed_kept_or_has_a_script_in_itself(http: httpx.AsyncClient) -> None:
    for path in ("/asks/a3", "/asks/a5", "/inbox"):
        answer = await http.get(path)
        policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
        assert policy.pop("default-src") == policy.pop("frame-ancestors") == policy.pop("base-uri") == "'none'"
        assert set(policy.values()) == {"'self'"}
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! src=)|<style|style=| on\w+=", answer.text)
    problem = await http.get("/asks/a99")
    assert "script-src" not in problem.headers["content-security-policy"]


async def test_a_whole_page_with_all_its_files_is_small(http: httpx.AsyncClient) -> None:
    for path in ("/asks/a3", "/inbox"):
        page = await http.get(path)
        files = [await http.get(each) for each in re.findall(r'(?:href|src)="(/[^"]+\?[0-9a-f]{16})"', page.text)]
        assert all(each.status_code == 200 and "immutable" in each.headers["cache-control"] for each in files)
        assert sum(len(each.content) for each in [page, *files]) <= 60_000
