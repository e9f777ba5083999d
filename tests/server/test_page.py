"""`opencode-mcp --page`: who comes in by the link, whose forms are taken, and what is decided there."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from opencode_fleet.drive import Driver
from opencode_fleet.errors import Unreachable, Unresponsive
from opencode_mcp.face import Face
from opencode_mcp.page.door import MAX_FORM_BYTES, LocalDoor
from opencode_mcp.page.serving import application
from opencode_mcp.page.source import FaceSource
from opencode_pages.parts import NotDecided, NotThere, PageDecision, Unavailable, Visitor
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1:8123"
SITE = f"http://{HOST}"
OURS = {"origin": SITE, "sec-fetch-site": "same-origin"}
ANN = Visitor("ann", "Ann", frozenset({"observe", "approve", "drive"}))


class Pages:
    """The pages over one agent, which asks for something, and a browser that was not let in yet."""

    def __init__(self, face: Face, http: httpx.AsyncClient, link: str, agent: FakeAgent) -> None:
        self.face = face
        self.http = http
        self.link = link
        self.agent = agent

    async def asked(self) -> str:
        """Have the agent ask, and return the path of the ask's page."""
        laptop = await self.face.fleet.find_live("laptop")
        (ask,) = (await self.face.driver.send(laptop, "ask me", "new", Notes().take)).asks
        return f"/asks/{self.face.handles.of_ask('laptop', ask.id)}"

    async def form(self, path: str) -> dict[str, str]:
        """Return the hidden fields of an ask's form."""
        text = (await self.http.get(path)).text
        main = text[text.index(f'action="{path}"') :]
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', main))

    async def send(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        return await self.http.post(path, data={**form, "decision": "once"}, headers={**OURS, **headers})


@asynccontextmanager
async def served(agent: FakeAgent) -> AsyncIterator[Pages]:
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = Face(fleet, Driver(fleet, 30))
        door = LocalDoor(SITE)
        app = application(FaceSource(face), door, HOST)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=SITE) as http:
            yield Pages(face, http, door.link, agent)


async def test_the_link_leads_in_once_and_without_it_nothing_is_shown() -> None:
    async with served(FakeAgent()) as pages:
        path = await pages.asked()
        for hidden in ("/inbox", "/inbox/now", "/inbox/events", path):
            refused = await pages.http.get(hidden, headers={"cookie": "opencode-page-8123="})
            assert refused.status_code == 403
            assert "ask me" not in refused.text
        assert (await pages.http.get(pages.link[:-1])).status_code == 403
        entered = await pages.http.get(pages.link)
        assert (entered.status_code, entered.headers["location"]) == (303, "/inbox")
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith("opencode-page-8123=")
        assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.lower().split("; "))
        assert pages.link.rpartition("/")[2] not in cookie
        assert "ask me" in (await pages.http.get(path)).text
        assert "laptop" in (await pages.http.get("/inbox")).text

        pages.http.cookies.clear()
        again = await pages.http.get(pages.link)
        assert again.status_code == 403
        assert "set-cookie" not in again.headers
        assert "It works once" in again.text


@pytest.mark.parametrize("host", ["evil.example:8123", "localhost:8123", "127.0.0.1", "127.0.0.1:81234", ""])
async def test_who_names_us_otherwise_sees_nothing_and_uses_up_no_link(host: str) -> None:
    async with served(FakeAgent()) as pages:
        refused = await pages.http.get(pages.link, headers={"host": host})
        assert (refused.status_code, refused.headers.get("set-cookie")) == (421, None)
        assert (await pages.http.get(pages.link)).status_code == 303


async def test_what_is_decided_on_the_page_reaches_the_agent_once() -> None:
    async with served(FakeAgent()) as pages:
        path = await pages.asked()
        await pages.http.get(pages.link)
        form = await pages.form(path)
        done = await pages.send(path, form)
        assert (done.status_code, pages.agent.decisions) == (303, [("once", None)])
        again = await pages.send(path, form)
        assert again.status_code == 409
        assert pages.agent.decisions == [("once", None)]


@pytest.mark.parametrize(
    ("forged", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8124"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
)
async def test_a_form_that_our_own_page_did_not_send_decides_nothing(forged: dict[str, str], status: int) -> None:
    async with served(FakeAgent()) as pages:
        path = await pages.asked()
        await pages.http.get(pages.link)
        form = await pages.form(path)
        assert (await pages.send(path, form, **forged)).status_code == status
        assert pages.agent.decisions == []
        assert (await pages.send(path, form)).status_code == 303


async def test_a_form_needs_its_own_token_and_a_size_that_ours_have() -> None:
    async with served(FakeAgent()) as pages:
        path, other = await pages.asked(), await pages.asked()
        await pages.http.get(pages.link)
        form, another = await pages.form(path), await pages.form(other)
        without = {name: value for name, value in form.items() if name != "token"}
        for wrong in (without, {**form, "token": "0" * 64}, {**form, "token": "é"}):
            assert (await pages.send(path, wrong)).status_code == 403
        assert (await pages.send(path, {**form, "digest": another["digest"]})).status_code == 409
        assert (await pages.send(path, {**form, "reason": "x" * MAX_FORM_BYTES})).status_code == 413
        assert (
            await pages.http.post(
                path, content=b"\xff=1", headers={**OURS, "content-type": "application/x-www-form-urlencoded"}
            )
        ).status_code == 400
        assert pages.agent.decisions == []


async def test_who_leaves_is_out() -> None:
    async with served(FakeAgent()) as pages:
        await pages.http.get(pages.link)
        text = (await pages.http.get("/inbox")).text
        leaving = re.findall(r'name="token" value="([^"]*)"', text[text.index('action="/leave"') :])[0]
        held = dict(pages.http.cookies)
        assert (await pages.http.post("/leave", data={"token": leaving}, headers=OURS)).status_code == 200
        kept = "; ".join(f"{name}={value}" for name, value in held.items())
        assert (await pages.http.get("/inbox", headers={"cookie": kept})).status_code == 403
        assert (await pages.http.get("/inbox", headers={"cookie": "opencode-page-8123="})).status_code == 403


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Unreachable("gone", refused=True), NotDecided), (Unresponsive("no answer"), Unavailable)],
)
async def test_what_may_have_been_taken_is_not_called_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    async with served(FakeAgent()) as pages:
        handle, source = (await pages.asked()).rpartition("/")[2], FaceSource(pages.face)
        digest = (await source.ask(ANN, handle)).digest
        for unknown in ("a99", "s1"):
            with pytest.raises(NotThere):
                await source.ask(ANN, unknown)
            with pytest.raises(NotDecided):
                await source.decide(ANN, PageDecision(unknown, digest, "once"))

        async def fails(*_arguments: object) -> None:
            raise error

        monkeypatch.setattr(pages.agent, "reply", fails)  # breaks only at the last step
        with pytest.raises(raised):
            await source.decide(ANN, PageDecision(handle, digest, "once"))
