"""The pages of asks in a real Chromium, over https: how they look, and all that a finger or a keyboard does there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from opencode_pages import inbox
from opencode_pages.documents import AskPart, EndedTurn, RunningSession
from opencode_pages.streams import MAX_STREAMS
from pages.conftest import PHONE
from support.gateway.browser import CONTRASTS, DESKTOP, fits, screenshot
from support.pages.fake_pages import EDIT, PERMISSION, SINCE
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

    from pages.conftest import World

SIZES: dict[str, dict[str, Any]] = {"desktop": {"viewport": DESKTOP}, "phone": PHONE}
LONG = PERMISSION.model_copy(
    update={
        "handle": "a9",
        "id": "per_9",
        "digest": "9" * 32,
        "parts": (
            AskPart(label="permission", text="bash"),
            AskPart(
                label="command", text="echo ⟨Cyrillic: \u0430⟩ \\u202e " + "x" * 300 + "\nmake" * 80, kind="command"
            ),
        ),
    }
)


def looks_right(page: Page, name: str) -> None:
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    screenshot(page, f"pages-{name}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_pages_fit_and_can_be_read(
    world: World, device: Callable[..., BrowserContext], size: str, scheme: str
) -> None:
    source = world.pages.source
    source.running = (
        RunningSession(
            instance="laptop", session="s14", title="Write the docs", since=SINCE, note="asked again: overloaded"
        ),
    )
    source.ended = (
        EndedTurn(result="done", instance="server", session="s2", title="Tidy up", at=SINCE),
        EndedTurn(
            result="failed", instance="laptop", session="s3", title="Deploy", problem="no credit left", at=SINCE
        ),
    )
    source.asks["a6"] = PERMISSION.model_copy(update={"handle": "a6", "state": "settled", "settled": "by bob"})
    source.asks["a9"] = LONG
    page = device(**SIZES[size], color_scheme=scheme).new_page()
    problems: list[str] = []
    page.on("console", lambda told: problems.append(told.text) if told.type in {"error", "warning"} else None)
    page.goto(f"{world.site.url}/inbox")
    expect(page.get_by_role("heading", name="4 asks wait for you")).to_be_visible()
    expect(page.get_by_role("button", name="Notify me on this device")).to_be_visible()
    looks_right(page, f"inbox-{size}-{scheme}")
    for handle in ("a3", "a4", "a5", "a6", "a9"):
        page.goto(f"{world.site.url}/asks/{handle}")
        looks_right(page, f"{handle}-{size}-{scheme}")
        for button in page.locator(".bar button").all():
            expect(button).to_be_in_viewport(ratio=1)
    assert problems == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_script", [True, False], ids=["script", "no script"])
def test_asks_are_decided_one_after_the_other(
    world: World, device: Callable[..., BrowserContext], size: str, has_script: bool
) -> None:
    page = device(**SIZES[size], java_script_enabled=has_script).new_page()
    page.goto(f"{world.site.url}/inbox")
    page.get_by_role("link", name="rm -rf build").click()
    page.get_by_label("What to do instead").fill("Use make clean")
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status").filter(has_text="a3 was rejected")).to_be_visible()
    page.get_by_role("link", name="edit src/total.py").click()
    page.get_by_role("button", name="Allow once").click()
    page.get_by_role("link", name="Which branch").click()
    page.get_by_role("group", name="Which branch").get_by_label("main").check()
    page.get_by_label("Linux").check()
    page.get_by_label("Windows").check()
    page.get_by_role("group", name="What is the release called?").get_by_role("textbox").fill("Snow goose")
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    assert [decision.answer for decision in world.pages.source.decisions] == [
        "reject: Use make clean",
        "once",
        ["main", "Linux, Windows", "Snow goose"],
    ]
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("Log in")).to_be_visible()


def test_by_keyboard_alone_and_enter_is_never_yes(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a3")
    order = [
        page.get_by_role("link", name="inbox"),
        page.get_by_role("button", name="Log out"),
        page.get_by_role("region", name="command"),
        page.get_by_label("What to do instead"),
        page.get_by_role("button", name="Reject"),
        page.get_by_role("button", name="Always"),
        page.get_by_role("button", name="Allow once"),
    ]
    for control in order:
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    screenshot(page, "pages-focus")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("status").filter(has_text="a3 was allowed")).to_be_visible()
    page.goto(f"{world.site.url}/asks/a5")
    page.get_by_role("radio", name="main").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="a5 was rejected")).to_be_visible()
    assert [decision.answer for decision in world.pages.source.decisions] == ["always", "reject"]


def test_who_writes_an_answer_chooses_it_by_that(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a5")
    item = page.get_by_role("group", name="Which branch")
    item.get_by_label("main").check()
    item.get_by_role("textbox").fill("hotfix")
    expect(item.get_by_label("In your own words:")).to_be_checked()


def test_what_changed_meanwhile_is_shown_anew(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**PHONE).new_page()
    page.goto(f"{world.site.url}/asks/a3")
    page.get_by_label("What to do instead").fill("typed before")
    world.pages.source.put(EDIT.model_copy(update={"handle": "a3"}))
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("alert")).to_contain_text("It changed since you looked")
    expect(page.get_by_label("What to do instead")).to_have_value("typed before")
    expect(page.get_by_text("Prices are in cents")).to_be_visible()
    looks_right(page, "changed")
    assert world.pages.source.decisions == []


def test_right_to_left_letters_turn_nothing_that_would_run(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    letters = "\u05d0\u05d1"
    command = f"rm {letters} 1 {letters} 2"
    parts = (AskPart(label="command", text=f"{command}\nmake", kind="command"),)
    world.pages.source.put(PERMISSION.model_copy(update={"parts": parts}))
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a3")
    lefts = page.get_by_role("region", name="command").evaluate(
        """(element, length) => [...Array(length).keys()].map((at) => {
          const range = document.createRange();
          range.setStart(element.firstChild, at);
          range.setEnd(element.firstChild, at + 1);
          return range.getBoundingClientRect().left;
        })""",
        len(command),
    )
    assert lefts == sorted(lefts)


def test_what_comes_is_on_the_open_page_at_once_and_takes_no_focus(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/inbox")
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    page.get_by_role("link", name="edit src/total.py").focus()
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(page.get_by_role("link", name="make install")).to_be_visible()
    expect(page).to_have_title("(4) Inbox · opencode-relay")
    expect(page.get_by_role("link", name="edit src/total.py")).to_be_focused()


def test_a_page_without_its_stream_asks_and_says_when_it_cannot(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    context = device()
    page = context.new_page()
    page.clock.install()
    page.route("**/inbox/events*", lambda route: route.fulfill(status=204))
    page.goto(f"{world.site.url}/inbox")
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    page.clock.run_for(30_000)
    expect(page.get_by_role("link", name="make install")).to_be_visible()
    page.route("**/inbox/now", lambda route: route.abort())
    page.clock.run_for(30_000)
    expect(page.get_by_role("status").filter(has_text="No connection")).to_be_visible()
    said = page.locator("#stale").inner_text()
    page.clock.run_for(600_000)
    # It says since when, not until when.
    expect(page.locator("#stale")).to_have_text(said)
    page.unroute("**/inbox/now")
    page.clock.run_for(30_000)
    expect(page.get_by_text("No connection")).to_be_hidden()
    page.unroute("**/inbox/events*")
    page.clock.run_for(30_000)
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    del world.pages.door.visitors["session-of-ann"]
    page.clock.run_for(30_000)
    expect(page.get_by_text("Log in")).to_be_visible()


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 502, "body": ""},
        {"status": 503, "content_type": "text/plain", "body": "Service Unavailable"},
        {"status": 503, "content_type": "text/html", "body": "<!DOCTYPE html><h1>This cannot be had just now</h1>"},
    ],
)
def test_what_is_no_inbox_takes_the_place_of_none(
    world: World, device: Callable[..., BrowserContext], answer: dict[str, Any]
) -> None:
    page = device().new_page()
    page.clock.install()
    page.route("**/inbox/events*", lambda route: route.fulfill(status=204))
    page.goto(f"{world.site.url}/inbox")
    page.route("**/inbox/now", lambda route: route.fulfill(**answer))
    page.clock.run_for(30_000)
    expect(page.get_by_role("status").filter(has_text="No connection")).to_be_visible()
    expect(page.get_by_role("link", name="rm -rf build")).to_be_visible()
    page.unroute("**/inbox/now")
    world.pages.source.unavailable = "The server behind the gateway does not answer just now."
    page.clock.run_for(30_000)
    expect(page.get_by_text("does not answer just now")).to_be_visible()
    expect(page.get_by_text("No connection")).to_be_hidden()


def test_a_page_that_lost_its_place_asks_until_it_is_looked_at_again(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    context = device()
    first = context.new_page()
    first.clock.install()
    first.goto(f"{world.site.url}/inbox")
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    with first.expect_response("**/inbox/now"):
        for _ in range(MAX_STREAMS):
            context.new_page().goto(f"{world.site.url}/inbox")
    assert world.pages.source.streams == MAX_STREAMS
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(first.get_by_role("link", name="make install")).to_be_hidden()
    first.clock.run_for(30_000)
    expect(first.get_by_role("link", name="make install")).to_be_visible()
    assert world.pages.source.streams == MAX_STREAMS


def test_a_page_without_a_script_comes_anew_by_itself(
    world: World, device: Callable[..., BrowserContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "REFRESH_SECONDS", 1)
    page = device(java_script_enabled=False).new_page()
    page.goto(f"{world.site.url}/inbox")
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(page.get_by_role("link", name="make install")).to_be_visible()
