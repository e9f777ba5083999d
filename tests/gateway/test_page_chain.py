"""From the page to the agent: a browser, the real gateway and OpenCode server, and a scripted instance that asks."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from support.fake_asking_instance import ASKS, asking_instances
from support.login_pages import Form
from support.plain_http import NO_TLS
from support.product_gateway import ProductGateway
from support.registry import register, registration
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.fake_asking_instance import AskingInstance

PASSWORD = "correct horse battery"
HANDLE = re.compile(r'href="/asks/(a\d+)"')


class Chain:
    """A gateway, logged in to, and an instance behind it."""

    def __init__(self, gateway: ProductGateway, laptop: AskingInstance, browser: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.laptop = laptop
        self.browser = browser

    def ask(self, text: str) -> None:
        """Have the agent ask whether it may `run ASK text`."""
        session = next(iter(self.laptop.sessions))
        parts = [{"type": "text", "text": f"{ASKS} {text}"}]
        self.laptop.prompt(session, {"messageID": f"msg_{text}", "parts": parts})

    async def shown(self, text: str) -> httpx.Response:
        """Return the page of the ask, once the inbox leads there."""
        path = ""

        async def leads_there() -> bool:
            nonlocal path
            inbox = await self.browser.get("/inbox")
            for handle in HANDLE.findall(inbox.text):
                path = f"/asks/{handle}"
                if text in (await self.browser.get(path)).text:
                    return True
            return False

        await eventually_async(leads_there, f"the ask of {text} is in the inbox", within=60)
        return await self.browser.get(path)

    async def decide(self, page: httpx.Response, decision: str) -> httpx.Response:
        fields = Form(page.text).fields
        sent = {name: fields[name] for name in ("token", "handle", "digest")} | {"decision": decision}
        return await self.browser.post(page.request.url.path, data=sent)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    """With approvals on the page alone."""
    async with asking_instances(["laptop"], sessions=1) as instances:
        laptop = instances["laptop"]
        register(tmp_path / "registry", registration("laptop", laptop.port, cwd=laptop.directory))
        env = {"RELAY_REGISTRY_DIR": str(tmp_path / "registry"), "RELAY_STATE_DIR": str(tmp_path / "state")}
        servers = {"opencode": {"command": "opencode-mcp", "env": env}}
        with ProductGateway(tmp_path / "gateway", servers, approvals="page") as gateway:
            gateway.owner("users", "add", "ann", types=f"{PASSWORD}\n")
            async with httpx.AsyncClient(
                base_url=gateway.url, trust_env=False, verify=NO_TLS, timeout=30.0, follow_redirects=False
            ) as browser:
                login = await browser.get("/inbox", follow_redirects=True)
                fields = Form(login.text).fields | {"name": "ann", "password": PASSWORD}
                answer = await browser.post("/login", data=fields)
                assert answer.headers["location"] == "/inbox"
                yield Chain(gateway, laptop, browser)


async def test_a_chat_gets_the_link_and_waits_while_the_person_decides_on_the_page(chain: Chain) -> None:
    token = chain.gateway.owner("tokens", "add", "m", "--capability", "approve", "--capability", "observe")
    async with chain.gateway.client(token.stdout.split()[-1]) as chat:
        chain.ask("one")
        page = await chain.shown("run ASK one")
        handle = page.request.url.path.rpartition("/")[2]
        listed = await chat.client.call_tool("reply", {"instance": "laptop"})
        assert f"{chain.gateway.url}/asks/{handle}" in str(listed.content)

        said = {"instance": "laptop", "ask": handle, "answer": "once"}
        waits = asyncio.create_task(chat.client.call_tool("reply", said))
        # Long enough for a yes to have arrived: the page shows it open still.
        assert (await chain.shown("run ASK one")).status_code == 200
        assert chain.laptop.decisions == []
        answer = await chain.decide(page, "once")
        assert answer.status_code == 303, answer.text
        told = await waits

    assert not told.is_error, told.content
    assert [each.decision for each in chain.laptop.decisions] == ["once"]
    [line] = [each for each in chain.gateway.audit() if each["event"] == "decision"]
    assert (line["outcome"], line["login"], line["instance"], line["ask"]) == ("ok", "ann", "laptop", handle)


async def test_what_was_settled_in_the_terminal_is_not_decided_again(chain: Chain) -> None:
    chain.ask("two")
    page = await chain.shown("run ASK two")
    [ask] = chain.laptop.open
    chain.laptop.decide(ask, "reject")

    answer = await chain.decide(page, "once")

    assert answer.status_code == 409
    assert [each.decision for each in chain.laptop.decisions] == ["reject"]


async def test_an_ask_that_is_another_one_by_now_is_not_decided(chain: Chain) -> None:
    chain.ask("three")
    page = await chain.shown("run ASK three")
    [ask] = chain.laptop.open
    chain.laptop.change(ask)

    answer = await chain.decide(page, "once")

    assert answer.status_code == 409
    assert chain.laptop.decisions == []


async def test_an_open_inbox_shows_a_new_ask_at_once(chain: Chain) -> None:
    """The journal tells of it: a look alone comes every five seconds."""
    async with chain.browser.stream("GET", "/inbox/events", headers={"Accept": "text/event-stream"}) as stream:
        chunks = stream.aiter_text()
        await anext(chunks)
        began = time.monotonic()
        chain.ask("four")
        async with asyncio.timeout(60):
            async for chunk in chunks:
                if HANDLE.search(chunk):
                    break
    print(f"a new ask was on the page after {1000 * (time.monotonic() - began):.0f} ms")  # a figure
