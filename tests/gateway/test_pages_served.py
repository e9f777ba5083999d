"""Asks on the pages of a real gateway: who may look and decide, what the server behind is told, what is written down.

The server behind it is fake; the way through the real one is in `tests/e2e`.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from opencode_gateway import machine_tokens
from opencode_gateway.capabilities import CAPABILITIES, Capability
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from support.chat.plain_http import NO_TLS
from support.gateway.authorization import CHEAP_HASH
from support.gateway.login_pages import Form
from support.gateway.person import PASSWORD
from support.gateway.product_gateway import ProductGateway
from support.pages.fake_asks import DIGEST, ENTRY, Asks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KEY = "opencode-relay/caller"
ASK = "/asks/a3"


class Served:
    """A gateway with one ask behind it."""

    def __init__(self, gateway: ProductGateway, asks: Asks) -> None:
        self.gateway = gateway
        self.asks = asks

    @property
    def users(self) -> Users:
        return Users(self.gateway.data_dir / "users.json")

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.gateway.url, trust_env=False, verify=NO_TLS, timeout=30.0)

    def audit(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.gateway.audit() if line["event"] == event]


def add_user(gateway: ProductGateway, name: str, *capabilities: Capability) -> None:
    """Let somebody log in, who may do everything unless something is named."""
    Users(gateway.data_dir / "users.json").add(name, CHEAP_HASH, capabilities or CAPABILITIES)


@pytest.fixture(scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("pages")
    asks = Asks(directory)
    asks.put()
    servers = {"opencode": {**ENTRY, "env": {"FAKE_ASKS": str(directory)}}}
    with ProductGateway(directory, servers) as gateway:
        add_user(gateway, "ann")
        add_user(gateway, "olga", "observe")
        add_user(gateway, "carl")
        yield Served(gateway, asks)


@pytest.fixture
def served(_served: Served) -> Served:
    _served.asks.put()
    return _served


async def logged_in(browser: httpx.AsyncClient, name: str = "ann", path: str = ASK) -> httpx.Response:
    """Log in on the way to a page, and return it."""
    login = await browser.get(path, follow_redirects=True)
    fields = Form(login.text).fields | {"name": name, "password": PASSWORD}
    page = await browser.post("/login", data=fields, follow_redirects=True)
    assert page.status_code == 200, page.text
    return page


def form_of(page: httpx.Response, **fields: str) -> dict[str, str]:
    return {name: Form(page.text).fields[name] for name in ("token", "digest")} | fields


async def test_what_is_decided_on_the_page_reaches_the_server_with_who_and_what_was_seen(served: Served) -> None:
    async with served.browser() as browser:
        page = await logged_in(browser)
        assert "make test" in page.text
        answer = await browser.post(ASK, data=form_of(page, decision="once"))
    assert answer.status_code == 303, answer.text
    [reply] = served.asks.replies()
    assert reply == {
        "instance": "laptop",
        "answer": "once",
        "ask": "a3",
        "told": {
            "login": "ann",
            "may": ["observe", "approve", "drive"],
            "page": served.gateway.url,
            "shown": DIGEST,
        },
    }
    line = served.audit("decision")[-1]
    started = [each for each in served.audit("page-session-started") if each["login"] == "ann"][-1]
    assert {name: line[name] for name in ("outcome", "login", "client_name", "ask", "instance", "digest")} == {
        "outcome": "ok",
        "login": "ann",
        "client_name": "pages",
        "ask": "a3",
        "instance": "laptop",
        "digest": DIGEST,
    }
    assert (line["decision"], line["page_session"]) == ("once", started["page_session"])


async def test_what_a_person_says_is_in_no_line_of_audit(served: Served) -> None:
    async with served.browser() as browser:
        page = await logged_in(browser)
        await browser.post(ASK, data=form_of(page, decision="reject", reason="my secret plan"))
    assert served.asks.replies()[0]["answer"] == "reject: my secret plan"
    line = served.audit("decision")[-1]
    assert line["decision"] == "reject"
    assert "secret" not in json.dumps(line)


async def test_a_form_that_is_sent_twice_decides_once(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser), decision="once")
        first, second = [(await browser.post(ASK, data=form)).status_code for _ in range(2)]
    assert (first, second) == (303, 409)
    assert len(served.asks.replies()) == 1


async def test_what_changed_after_it_was_shown_is_not_decided(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser), decision="once")
        served.asks.change(digest="1" * 32, parts=[{"label": "Command", "text": "rm -rf /", "kind": "command"}])
        answer = await browser.post(ASK, data=form)
    assert answer.status_code == 409
    assert "rm -rf /" in answer.text
    assert served.asks.replies() == []


async def test_who_may_only_look_decides_nothing(served: Served) -> None:
    async with served.browser() as ann, served.browser() as olga:
        page = await logged_in(olga, "olga")
        assert "decision" not in Form(page.text).fields
        form = form_of(await logged_in(ann), decision="once")
        # With another's form, and without one.
        for fields in (form, {**form, "token": ""}):
            assert (await olga.post(ASK, data=fields)).status_code == 403
    assert served.asks.replies() == []


async def test_who_lost_approve_while_the_page_was_open_decides_nothing(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser, "carl"), decision="once")
        served.users.set_capabilities("carl", ["observe"])
        answer = await browser.post(ASK, data=form)
    served.users.set_capabilities("carl", CAPABILITIES)
    assert answer.status_code == 400
    assert served.asks.replies() == []


async def test_who_is_disabled_while_the_page_is_open_decides_nothing_and_sees_nothing(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser, "carl"), decision="once")
        assert "ended" in served.gateway.owner("users", "disable", "carl").stdout
        answer = await browser.post(ASK, data=form)
        looked = await browser.get("/inbox")
    served.users.set_disabled("carl", disabled=False)
    assert [answer.status_code, looked.status_code] == [303, 303]
    assert looked.headers["location"].startswith("/login?")
    assert served.asks.replies() == []


async def test_sessions_on_pages_are_listed_and_revoked_like_others(served: Served) -> None:
    async with served.browser() as browser:
        await logged_in(browser, path="/inbox")
        sessions = [each for each in served.gateway.lists("sessions", "list") if each["client_name"] == "pages"]
        newest = max(sessions, key=lambda each: each["created_at"])
        assert newest["login"] == "ann"
        assert "pages" in served.gateway.owner("sessions", "list").stdout
        assert served.gateway.owner("sessions", "revoke", newest["id"]).stdout == "1 session ended.\n"
        assert (await browser.get("/inbox")).status_code == 303


async def test_another_site_s_page_can_send_no_decision(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser), decision="once")
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example.edu"}):
            assert (await browser.post(ASK, data=form, headers=headers)).status_code == 403
        other_name = await browser.get(ASK, headers={"Host": "evil.example.edu"})
    assert other_name.status_code == 421
    assert served.asks.replies() == []


async def test_a_server_that_ends_while_it_decides_leaves_it_open_whether_it_did(served: Served) -> None:
    async with served.browser() as browser:
        form = form_of(await logged_in(browser), decision="once")
        served.asks.change(dies=True)
        answer = await browser.post(ASK, data=form)
        assert answer.status_code == 503
        assert "is not known" in answer.text
        assert served.audit("decision")[-1]["outcome"] == "unknown"
        # And it is there again.
        assert (await browser.get(ASK)).status_code == 200


async def test_an_ask_that_is_none_is_not_there(served: Served) -> None:
    async with served.browser() as browser:
        await logged_in(browser)
        assert (await browser.get("/asks/a99")).status_code == 404


async def test_the_landing_page_leads_to_the_inbox(served: Served) -> None:
    async with served.browser() as browser:
        page = await browser.get("/", headers={"Accept": "text/html"})
    assert '<a href="/inbox">' in page.text


async def test_an_open_page_hears_of_a_change_and_ends_with_its_session(served: Served) -> None:
    async with served.browser() as browser:
        await logged_in(browser, path="/inbox")
        async with browser.stream("GET", "/inbox/events", headers={"Accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            chunks = stream.aiter_text()
            await until(chunks, "make test")
            served.asks.change(summary="bash: make clean", digest="2" * 32)
            await until(chunks, "make clean")


async def until(chunks: AsyncIterator[str], text: str) -> None:
    """Read a stream until it has said this."""
    said = ""
    async with asyncio.timeout(60):
        async for chunk in chunks:
            said += chunk
            if text in said:
                return
    pytest.fail(f"the stream ended without {text!r}: {said[-500:]}")


async def test_what_is_for_pages_is_no_chat_s_to_read(served: Served) -> None:
    """A chat has the tools, which know what a person was shown."""
    token = machine(served.gateway, "reads", "observe", "approve", "drive")
    async with served.gateway.client(token) as client:
        assert (await client.client.list_resources()).resources == []
        for uri in ("opencode://inbox", "opencode://asks/a3", "opencode://asks/laptop/per_1"):
            with pytest.raises(MCPError):
                await client.client.read_resource(uri)


async def test_while_nothing_can_be_written_down_nothing_is_decided(tmp_path: Path) -> None:
    with told_gateway(tmp_path, audit={"file": "/dev/full"}) as gateway:
        add_user(gateway, "ann")
        served = Served(gateway, Asks(tmp_path))
        async with served.browser() as browser:
            answer = await browser.post(ASK, data=form_of(await logged_in(browser), decision="once"))
    assert answer.status_code == 409
    assert "audit log" in answer.text
    assert served.asks.replies() == []


# Where chats decide nothing.


def told_gateway(directory: Path, servers: dict[str, Any] | None = None, **settings: Any) -> ProductGateway:
    asks = Asks(directory)
    asks.put()
    entry = {**ENTRY, "env": {"FAKE_ASKS": str(directory)}}
    return ProductGateway(directory, servers or {"opencode": entry}, **settings)


def machine(gateway: ProductGateway, name: str, *capabilities: Capability) -> str:
    """Return a new token of a machine."""
    store = Store(gateway.data_dir / FILE_NAME)
    try:
        return machine_tokens.add(store, name, capabilities, now=time.time())
    finally:
        store.close()


async def called(served: Served, token: str) -> Any:
    """Return what the server behind is told of a reply that this token makes."""
    async with served.gateway.client(token) as client:
        await client.client.call_tool("reply", {"instance": "laptop", "ask": "a3", "answer": "once"})
    return served.asks.replies()[-1]["told"]


@pytest.fixture(scope="module")
def _strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("strict")
    with told_gateway(directory, approvals="page", passkey_for=["always"]) as gateway:
        add_user(gateway, "ann")
        yield Served(gateway, Asks(directory))


@pytest.fixture
def strict(_strict: Served) -> Served:
    """Give one with approvals on the page alone, where `always` takes a passkey."""
    _strict.asks.put()
    return _strict


async def test_chat_clients_and_machines_are_told_the_page_and_that_they_decide_nothing(strict: Served) -> None:
    gateway = strict.gateway
    approving = machine(gateway, "approve", "approve")
    driving = machine(gateway, "drive", "drive")
    looking = machine(gateway, "observe", "observe")

    for token, capability in ((approving, "approve"), (driving, "drive")):
        assert await called(strict, token) == {
            "login": f"token:{capability}",
            "may": [capability],
            "page": gateway.url,
            "decides": "page",
            "always": False,
        }
    async with gateway.client(looking) as client:
        assert "reply" not in {tool.name for tool in (await client.client.list_tools()).tools}
    # Nobody can meet the settings of a relay that has no name, and whoever checks them is told.
    assert "passkey_for needs the page at a name" in gateway.owner("check").stderr


async def test_where_people_decide_anywhere_chats_are_told_the_page_alone(served: Served) -> None:
    token = machine(served.gateway, "m", "approve")
    assert await called(served, token) == {"login": "token:m", "may": ["approve"], "page": served.gateway.url}
    driving = machine(served.gateway, "d", "drive")
    async with served.gateway.client(driving) as client:
        assert "reply" not in {tool.name for tool in (await client.client.list_tools()).tools}


async def test_a_server_that_has_no_page_decides_nothing_then(tmp_path: Path) -> None:
    """One that is not told of callers would take a chat's word for its person's."""
    entry = {**ENTRY, "env": {"FAKE_ASKS": str(tmp_path), "RELAY_CALLERS": ""}}
    with told_gateway(tmp_path, {"opencode": entry}, approvals="page") as gateway:
        token = machine(gateway, "m", "approve")
        async with gateway.client(token) as client:
            answer = await client.client.call_tool("reply", {"instance": "laptop", "ask": "a3", "answer": "once"})
        assert answer.is_error
        assert Asks(tmp_path).replies() == []
        assert gateway.get("/inbox").status_code == 404
        # It would lead to the inbox, and its way out is one of the inbox's routes.
        assert gateway.get("/account").status_code == 404


async def test_what_takes_a_passkey_is_not_decided_without_one(strict: Served) -> None:
    async with strict.browser() as browser:
        page = await logged_in(browser)
        answer = await browser.post(ASK, data=form_of(page, decision="always"))
        assert answer.status_code == 403
        assert "passkey" in answer.text
        assert strict.asks.replies() == []
        assert (await browser.post(ASK, data=form_of(page, decision="once"))).status_code == 303
    assert strict.audit("decision")[0]["outcome"] == "refused"


async def test_a_stream_ends_when_the_service_is_told_to(tmp_path: Path) -> None:
    with told_gateway(tmp_path) as gateway:
        add_user(gateway, "ann")
        served = Served(gateway, Asks(tmp_path))
        async with served.browser() as browser:
            await logged_in(browser, path="/inbox")
            async with browser.stream("GET", "/inbox/events", headers={"Accept": "text/event-stream"}) as stream:
                chunks = stream.aiter_text()
                await until(chunks, "make test")
                gateway.process.terminate()
                # To its end, which is whole: else httpx raises.
                async for _ in chunks:
                    pass
        assert "requests are answered with what goes on" not in gateway.log
