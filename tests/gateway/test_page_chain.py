"""From the page to the agent: Caddy, the real gateway and OpenCode server, and a scripted instance that asks."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio

from support.chat.mcp_client import SERVER_COMMAND
from support.fleet.registry import register, registration
from support.gateway.login_pages import Form
from support.gateway.public_gateway import PublicGateway
from support.opencodes.fake_asking_instance import ASKS, asking_instances
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.opencodes.fake_asking_instance import AskingInstance

pytestmark = pytest.mark.asyncio(loop_scope="module")
PASSWORD = "correct horse battery"
HANDLE = re.compile(r'href="/asks/(a\d+)"')


class Chain:
    """A gateway, logged in to, and an instance behind it."""

    def __init__(self, gateway: PublicGateway, laptop: AskingInstance, browser: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.laptop = laptop
        self.browser = browser

    def ask(self, text: str) -> None:
        """Have the agent ask whether it may `run ASK text`."""
        session = next(each for each in self.laptop.sessions if each not in self.laptop.busy)
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
        sent = {name: fields[name] for name in ("token", "digest")} | {"decision": decision}
        return await self.browser.post(page.request.url.path, data=sent)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """With approvals on the page alone. Each test has an ask of its own."""
    tmp_path = tmp_path_factory.mktemp("chain")
    async with asking_instances(["laptop"], sessions=4) as instances:
        laptop = instances["laptop"]
        register(tmp_path / "registry", registration("laptop", laptop.port, cwd=laptop.directory))
        env = {"RELAY_REGISTRY_DIR": str(tmp_path / "registry"), "RELAY_STATE_DIR": str(tmp_path / "state")}
        (tmp_path / "gateway").mkdir()
        entry = {"command": str(SERVER_COMMAND), "env": env}
        with PublicGateway(tmp_path / "gateway", tmp_path, entry=entry, approvals="page") as gateway:
            gateway.owner("users", "add", "ann", types=f"{PASSWORD}\n")
            async with httpx.AsyncClient(
                base_url=gateway.front_url, trust_env=False, verify=gateway.trust(), timeout=30.0
            ) as browser:
                login = await browser.get("/inbox", follow_redirects=True)
                fields = Form(login.text).fields | {"name": "ann", "password": PASSWORD}
                answer = await browser.post("/login", data=fields)
                assert answer.headers["location"] == "/inbox"
                yield Chain(gateway, laptop, browser)


def taken(chain: Chain, text: str) -> list[str]:
    """Return what was decided of an ask."""
    return [each.decision for each in chain.laptop.decisions if f"run {ASKS} {text}" in each.command]


async def test_a_chat_gets_the_link_and_waits_while_the_person_decides_on_the_page(chain: Chain) -> None:
    token = chain.gateway.owner("tokens", "add", "m", "--capability", "approve", "--capability", "observe")
    async with chain.gateway.client(token.stdout.split()[-1]) as chat:
        chain.ask("one")
        page = await chain.shown("run ASK one")
        handle = page.request.url.path.rpartition("/")[2]
        listed = await chat.client.call_tool("reply", {"instance": "laptop"})
        assert f"{chain.gateway.front_url}/asks/{handle}" in str(listed.content)

        said = {"instance": "laptop", "ask": handle, "answer": "once"}
        waits = asyncio.create_task(chat.client.call_tool("reply", said))
        # Long enough for a yes to have arrived: the page shows it open still.
        assert (await chain.shown("run ASK one")).status_code == 200
        assert chain.laptop.decisions == []
        answer = await chain.decide(page, "once")
        assert answer.status_code == 303, answer.text
        told = await waits

    assert not told.is_error, told.content
    assert taken(chain, "one") == ["once"]
    [line] = [each for each in chain.gateway.audit() if each["event"] == "decision"]
    assert (line["outcome"], line["login"], line["instance"], line["ask"]) == ("ok", "ann", "laptop", handle)
    assert "approvals: on the page alone" in chain.gateway.owner("check").stdout


async def test_what_was_settled_in_the_terminal_is_not_decided_again(chain: Chain) -> None:
    chain.ask("two")
    page = await chain.shown("run ASK two")
    ask = next(each.id for each in chain.laptop.open.values() if each.command.endswith(" two"))
    chain.laptop.decide(ask, "reject")

    answer = await chain.decide(page, "once")

    assert answer.status_code == 409
    assert taken(chain, "two") == ["reject"]


async def test_an_ask_that_is_another_one_by_now_is_not_decided(chain: Chain) -> None:
    chain.ask("three")
    page = await chain.shown("run ASK three")
    ask = next(each.id for each in chain.laptop.open.values() if each.command.endswith(" three"))
    chain.laptop.change(ask)

    answer = await chain.decide(page, "once")

    assert answer.status_code == 409
    assert taken(chain, "three") == []


async def test_an_open_inbox_shows_a_new_ask_at_once(chain: Chain) -> None:
    """The journal tells of it: a look alone comes every five seconds."""
    async with chain.browser.stream("GET", "/inbox/events", headers={"Accept": "text/event-stream"}) as stream:
        chunks = stream.aiter_text()
        # What there was before comes first.
        async with asyncio.timeout(60):
            while "</" not in await anext(chunks):
                pass
        began = time.monotonic()
        chain.ask("four")
        said = ""
        async with asyncio.timeout(60):
            while "ASK four" not in said:
                said += await anext(chunks)
    print(f"a new ask was on the page after {1000 * (time.monotonic() - began):.0f} ms")
