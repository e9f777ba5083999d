"""The inbox without a browser: its stream, who is told on which device, and where messages lead."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from opencode_pages import inbox
from opencode_pages.devices import device_name
from opencode_pages.documents import EndedTurn
from opencode_pages.parts import ToldAsk
from opencode_pages.streams import MAX_STREAMS
from support.pages.fake_pages import PERMISSION, FakePages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

MESSAGE = "0123456789abcdef0123"
SUBSCRIPTION = {"endpoint": "https://push.example.net/abc", "p256dh": "B" * 87, "auth": "c" * 22}


class Stream:
    """A stream of events as a browser reads it."""

    def __init__(self, app: Any, query: str = "", session: str = "session-of-ann") -> None:
        self._told: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        headers = [(b"host", b"relay.example.org"), (b"cookie", f"session={session}".encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "https", "path": "/inbox/events", "raw_path": b"/inbox/events", "root_path": "",
            "query_string": query.encode(), "headers": headers, "client": ("127.0.0.1", 1), "server": ("s", 443),
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self._receive, self._send))
        self._asked = False

    async def next(self) -> str:
        """Return the next thing that the stream says."""
        async with asyncio.timeout(20):
            return (await self._told.get()).decode()

    async def event(self) -> str:
        """Return the next event's data."""
        while not (said := await self.next()).startswith("id:"):
            assert not said.startswith("event:"), said
        return said

    async def over(self) -> None:
        """Wait until it is over."""
        async with asyncio.timeout(20):
            await self.task

    async def leave(self) -> None:
        self._gone.set()
        await self.over()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and message.get("body"):
            self._told.put_nowait(message["body"])


@asynccontextmanager
async def stream(pages: FakePages, query: str = "", session: str = "session-of-ann") -> AsyncIterator[Stream]:
    opened = Stream(pages.app, query, session)
    try:
        yield opened
    finally:
        await opened.leave()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream look at its visitor again soon."""
    monkeypatch.setattr(inbox, "COMMENT_SECONDS", 0.05)
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.01)


async def test_a_stream_tells_what_a_page_does_not_show_yet_and_then_what_changes(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    shown = await http.get("/inbox")
    (mark,) = re.findall(r'data-mark="(\w+)"', shown.text)
    async with stream(pages, f"seen={mark}") as told:
        assert (await told.next()).startswith("retry:")
        assert await told.next() == ": here\n\n"
        pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "id": "per_8", "summary": "bash\nid: 1"}))
        event = await told.event()
        assert 'id="ask-a8"' in event
        assert all(line.startswith(("id: ", "data:")) for line in event.splitlines() if line)
        assert "".join(line.removeprefix("data: ") for line in event.splitlines()[1:]) == "".join(
            (await http.get("/inbox/now")).text.splitlines()
        )
    assert pages.source.streams == 0


async def test_a_stream_says_now_and_then_that_it_is_there(pages: FakePages, quick: None) -> None:
    async with stream(pages) as told:
        await told.event()
        assert [await told.next() for _ in range(3)] == [": here\n\n"] * 3


async def test_a_stream_ends_with_its_session_and_tells_nothing_after_it(pages: FakePages, quick: None) -> None:
    async with stream(pages) as told:
        await told.event()
        del pages.door.visitors["session-of-ann"]
        pages.source.put(PERMISSION.model_copy(update={"handle": "a8"}))
        while (said := await told.next()) == ": here\n\n":
            pass
        assert said.startswith("event: over")
        await told.over()
    assert pages.source.streams == 0


async def test_a_stream_shows_what_its_visitor_may_see_by_now(pages: FakePages, quick: None) -> None:
    pages.source.ended = (EndedTurn(result="done", instance="server", title="Tidy up", at=0),)
    async with stream(pages) as told:
        assert "Tidy up" in await told.event()
        pages.door.allow("ann", "approve")
        event = await told.event()
        assert "ask-a3" in event
        assert "Tidy up" not in event


async def test_of_too_many_streams_of_a_person_the_oldest_ends(pages: FakePages, quick: None) -> None:
    bob = pages.door.let_in("bob")
    async with stream(pages, session=bob) as other:
        await other.event()
        mine = [Stream(pages.app) for _ in range(MAX_STREAMS)]
        for each in mine:
            await each.event()
        async with stream(pages) as newest:
            await newest.event()
            await mine[0].over()
            assert pages.source.streams == MAX_STREAMS + 1
            assert not any(each.task.done() for each in [other, *mine[1:]])
            for each in mine[1:]:
                await each.leave()
    assert pages.source.streams == 0


async def test_a_link_of_another_site_cannot_say_that_something_was_decided(http: httpx.AsyncClient) -> None:
    link = "/inbox?decided=reject&ask=a3"
    assert "a3 was rejected" in (await http.get(link)).text
    for odd in ("/inbox?decided=reject&ask=%3Cb%3E", "/inbox?decided=nothing&ask=a3", "/inbox?note=a3+was+rejected"):
        assert 'class="done"' not in (await http.get(odd)).text
    http.headers["sec-fetch-site"] = "cross-site"
    assert 'class="done"' not in (await http.get(link)).text


async def test_a_page_without_a_script_comes_anew(http: httpx.AsyncClient) -> None:
    assert (
        '<noscript><meta http-equiv="refresh" content="20; url=/inbox"></noscript>' in (await http.get("/inbox")).text
    )


async def test_to_log_out_ends_the_session_and_takes_our_form(pages: FakePages, http: httpx.AsyncClient) -> None:
    (token,) = re.findall(
        r'action="/leave">\s*<input type="hidden" name="token" value="(\w+)"', (await http.get("/inbox")).text
    )
    assert (await http.post("/leave", data={"token": "0" * 64})).status_code == 403
    assert (await http.post("/leave", data={"token": token})).status_code == 303
    assert (await http.get("/inbox")).headers["location"] == "/login"


async def push_token(http: httpx.AsyncClient) -> str:
    (token,) = re.findall(r'data-token="(\w+)"', (await http.get("/inbox")).text)
    return str(token)


async def test_a_browser_is_told_from_now_on_and_then_no_more(pages: FakePages, http: httpx.AsyncClient) -> None:
    http.headers["user-agent"] = (
        "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/156.0 Mobile Safari/537.36"
    )
    form = {**SUBSCRIPTION, "token": await push_token(http)}
    assert (await http.post("/push", data={**form, "action": "add"})).status_code == 204
    ((login, subscription, device),) = pages.pushes.added
    assert (login, subscription.endpoint, device) == ("ann", SUBSCRIPTION["endpoint"], "Chrome on Android")
    assert SUBSCRIPTION["endpoint"] not in repr(subscription)
    assert (await http.post("/push", data={**form, "action": "remove"})).status_code == 204
    assert pages.pushes.removed == [("ann", SUBSCRIPTION["endpoint"])]


async def test_a_subscription_that_cannot_be_is_not_taken(pages: FakePages, http: httpx.AsyncClient) -> None:
    form = {**SUBSCRIPTION, "token": await push_token(http), "action": "add"}
    wrong = [
        {"endpoint": ""},
        {"endpoint": "https://e.example/" + "x" * 3000},
        {"auth": "x" * 300},
        {"action": "own"},
    ]
    for each in wrong:
        assert (await http.post("/push", data={**form, **each})).status_code == 400
    assert (await http.post("/push", data={**form, "token": "0" * 64})).status_code == 403
    pages.pushes.unavailable = "This push service is not known here."
    refused = await http.post("/push", data=form)
    assert (refused.status_code, refused.text) == (503, pages.pushes.unavailable)
    assert pages.pushes.added == []


def test_devices_are_called_as_people_call_them() -> None:
    assert (
        device_name("Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) Version/26 Safari/604.1")
        == "Safari on iPhone"
    )
    assert device_name("Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0") == "Firefox on Linux"
    assert device_name("<script>") == "a browser"


async def test_a_receipt_says_that_a_message_was_shown_and_nothing_else(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    http.cookies.clear()
    assert (await http.post("/receipts", json={"id": MESSAGE, "state": "shown"})).status_code == 204
    assert pages.told.seen == [("shown", MESSAGE)]
    wrong: list[Any] = [
        {"id": MESSAGE, "state": "opened"},
        {"id": MESSAGE},
        {"id": MESSAGE.upper(), "state": "shown"},
        {"id": [MESSAGE], "state": "shown"},
        {"id": MESSAGE, "state": "shown", "more": "x" * 200},
        [MESSAGE],
    ]
    for each in wrong:
        assert (await http.post("/receipts", json=each)).status_code == 400
    text = f'{{"id":"{MESSAGE}","state":"shown"}}'
    assert (await http.post("/receipts", content=text, headers={"content-type": "text/plain"})).status_code == 403
    http.headers["sec-fetch-site"] = "cross-site"
    assert (await http.post("/receipts", json={"id": MESSAGE, "state": "shown"})).status_code == 403
    assert pages.told.seen == [("shown", MESSAGE)]


async def test_a_message_leads_to_what_it_told_of_and_is_opened_by_who_is_logged_in(
    pages: FakePages, http: httpx.AsyncClient
) -> None:
    pages.told.asks = {MESSAGE: ToldAsk("laptop", "per_1"), "f" * 20: ToldAsk("laptop", "per_0")}
    leads = {MESSAGE: "/asks/a3", "f" * 20: "/inbox?note=over", "0" * 20: "/inbox", "..": "/inbox?note=unknown"}
    for message, location in leads.items():
        assert (await http.get(f"/told/{message}".replace("..", "x"))).headers["location"] == location
    assert pages.told.seen == [("opened by ann", each) for each in leads if each != ".."]
    assert "not there any more" in (await http.get("/inbox?note=over")).text
    pages.source.unavailable = "gone"
    assert (await http.get(f"/told/{MESSAGE}")).headers["location"] == "/inbox"
    http.cookies.clear()
    pages.told.seen.clear()
    assert (await http.get(f"/told/{MESSAGE}")).headers["location"] == "/login"
    assert pages.told.seen == []
