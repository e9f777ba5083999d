"""From a message to the page of its ask, and browsers that are told: through a real gateway with pages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from notify.conftest import Fleet
from opencode_notify.ledger import Ledger
from opencode_notify.outlets.webhook import new_secret
from opencode_notify.tables import DIRECTORY
from support.chat.plain_http import NO_TLS
from support.gateway.login_pages import Form
from support.gateway.product_gateway import ProductGateway
from support.pages.fake_asks import ENTRY, Asks
from support.pages.fake_browser import FakeBrowser, text
from support.pages.fake_receiver import receiver
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "correct horse battery"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ProductGateway]:
    """One with pages, beside a journal that a test writes into."""
    Asks(tmp_path).put()
    env = {"FAKE_ASKS": str(tmp_path), "RELAY_STATE_DIR": str(tmp_path / "state")}
    with ProductGateway(tmp_path / "gateway", {"opencode": {**ENTRY, "env": env}}) as found:
        for name in ("ann", "ben"):
            assert found.owner("users", "add", name, types=f"{PASSWORD}\n").returncode == 0
        yield found


def browser(gateway: ProductGateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, trust_env=False, verify=NO_TLS, timeout=30.0)


async def logged_in(client: httpx.AsyncClient, name: str, path: str) -> httpx.Response:
    login = await client.get(path, follow_redirects=True)
    return await client.post(
        "/login", data=Form(login.text).fields | {"name": name, "password": PASSWORD}, follow_redirects=True
    )


async def test_a_message_leads_over_the_login_to_its_ask_and_what_became_of_it_is_noted(
    gateway: ProductGateway, tmp_path: Path
) -> None:
    async with receiver(tmp_path) as hook:
        url = f"http://localhost:{hook.ports['http']}/"
        outlet = json.dumps({"url": url, "secret": new_secret(), "allow_private": True})
        assert gateway.owner("notify", "add", "ann", "hook", "--kind", "webhook", types=outlet).returncode == 0
        assert gateway.owner("notify", "rules", "ann", "grouping_seconds=0").returncode == 0
        fleet, ledger = Fleet(tmp_path / "state"), Ledger(tmp_path / "state" / DIRECTORY)
        fleet.asks("laptop", "per_1")
        await eventually_async(lambda: hook.got)
        told: dict[str, Any] = json.loads(hook.got[0].body)
        assert told["url"] == f"{gateway.url}/told/{told['id']}"

        async with browser(gateway) as fetcher:
            # Whoever fetches a link, as mail scanners do, opens nothing.
            assert (await fetcher.get(told["url"])).status_code == 303
            assert (await logged_in(fetcher, "ben", told["url"])).url.path == "/inbox"
        assert [each.opened_at for each in ledger.deliveries(1)] == [None]
        async with browser(gateway) as own:
            page = await logged_in(own, "ann", told["url"])
            assert page.url.path == "/asks/a3"
            assert "make test" in page.text
            assert [each.opened_at is not None for each in ledger.deliveries(1)] == [True]

            hook.behaviour = 410
            fleet.asks("desk", "per_2")
            await eventually_async(lambda: ledger.disabled("ann"))
            assert "outlet hook of ann is switched off since" in (await own.get("/inbox")).text
        async with browser(gateway) as other:
            assert "outlet hook" not in (await logged_in(other, "ben", "/inbox")).text
        ledger.close()
        fleet.journal.close()


async def test_a_browser_is_added_and_removed_by_its_person_alone_and_never_at_a_private_address(
    gateway: ProductGateway,
) -> None:
    people = gateway.data_dir / "notify.json"
    async with browser(gateway) as own:
        page = await logged_in(own, "ann", "/inbox")
        token = page.text.split('data-token="')[1].split('"')[0]
        made = FakeBrowser()
        form = {"token": token, "action": "add", "p256dh": text(made.point), "auth": text(made.secret)}
        refused = await own.post("/push", data={**form, "endpoint": "https://127.0.0.1/push"})
        assert (refused.status_code, "at no public address" in refused.text) == (503, True)
        assert not people.exists()

        endpoint = "https://1.1.1.1/push"  # nothing is sent there
        assert (await own.post("/push", data={**form, "endpoint": endpoint})).status_code == 204
        assert [each["kind"] for each in json.loads(people.read_text())["ann"]["outlets"]] == ["web_push"]
        assert gateway.lists("notify", "list")[0]["outlet"] == "a-browser"
        assert (await own.post("/push", data={**form, "token": "x", "endpoint": endpoint})).status_code in {400, 403}

        async with browser(gateway) as other:
            page = await logged_in(other, "ben", "/inbox")
            form["token"] = page.text.split('data-token="')[1].split('"')[0]
            await other.post("/push", data={**form, "action": "remove", "endpoint": endpoint})
        assert len(json.loads(people.read_text())["ann"]["outlets"]) == 1
        form["token"] = token
        await own.post("/push", data={**form, "action": "remove", "endpoint": endpoint})
        assert json.loads(people.read_text())["ann"]["outlets"] == []

        assert (await own.post("/push", data={**form, "endpoint": endpoint})).status_code == 204
        ended = gateway.owner("sessions", "revoke", "--login", "ann")
        assert "1 browser is told nothing any more" in ended.stdout
        assert json.loads(people.read_text())["ann"]["outlets"] == []


async def test_who_is_shut_out_is_told_nothing_until_they_are_let_in_again(
    gateway: ProductGateway, tmp_path: Path
) -> None:
    async with receiver(tmp_path) as hook:
        url = f"http://localhost:{hook.ports['http']}/hook"
        outlet = {"name": "hook", "kind": "webhook", "url": url, "secret": new_secret(), "allow_private": True}
        people = gateway.data_dir / "notify.json"
        people.touch(0o600)
        everybody = {name: {"outlets": [outlet], "rules": {"grouping_seconds": 0}} for name in ("ann", "ben", "team")}
        people.write_text(json.dumps(everybody))
        fleet, ledger = Fleet(tmp_path / "state"), Ledger(tmp_path / "state" / DIRECTORY)

        def who(ask: str) -> list[str]:
            """Return whom a message tells of an ask. What is due for all people is written in one step."""
            key = f"ask/laptop/{ask}"
            return sorted(
                each.person
                for each in ledger.deliveries(99)
                if key in {item.key for item in ledger.told_by(each.message)}
            )

        fleet.asks("laptop", "per_1")
        await eventually_async(lambda: who("per_1") == ["ann", "ben", "team"])
        gateway.owner("users", "disable", "ben")
        gateway.owner("users", "capabilities", "ann", "--capability", "drive")
        fleet.asks("laptop", "per_2")
        # Who has no login is told because the owner said so.
        await eventually_async(lambda: who("per_2"))
        assert who("per_2") == ["team"]
        gateway.owner("users", "capabilities", "ann", "--capability", "observe")
        fleet.asks("laptop", "per_3")
        await eventually_async(lambda: who("per_3") == ["ann", "team"])
        await eventually_async(lambda: who("per_2") == ["ann", "team"])
        gateway.owner("users", "remove", "ben")
        assert sorted(json.loads(people.read_text())) == ["ann", "team"]
        ledger.close()
        fleet.journal.close()
