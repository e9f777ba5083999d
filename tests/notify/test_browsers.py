"""Browsers that a person has switched notices on in: added by a page, removed by it, or when they are gone."""

from __future__ import annotations

import asyncio
import json
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from opencode_gateway.cli import cli
from opencode_notify.browsers import KEY_FILE, MAX_BROWSERS, Browsers
from opencode_notify.errors import BadOutlet
from opencode_notify.kinds import outlet_of
from opencode_notify.problems import NotifyError
from opencode_notify.rules import NoticeRules, ToldPerson, changing_people, load_people
from opencode_notify.service import telling
from support.pages.fake_browser import FakeBrowser
from support.pages.fake_receiver import NAME, Receiver, receiver
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notify.conftest import Told

CONTACT = "https://relay.example.org"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Receiver]:
    """A push service."""
    async with receiver(tmp_path) as found:
        yield found


@pytest.fixture
def browsers(ann: Told, server: Receiver) -> Browsers:
    """Those of ann's gateway."""
    return Browsers(ann.path, CONTACT, server.network())


def names(ann: Told) -> list[str]:
    return [outlet.name for outlet in load_people(ann.path)["ann"].outlets]


async def test_a_browser_is_told_once_it_was_added_and_taken_out_when_its_push_service_says_that_it_is_gone(
    ann: Told, browsers: Browsers, server: Receiver
) -> None:
    ann.path.unlink()
    browser = FakeBrowser()
    await browsers.add("ann", browser.subscription(server), "Ann's phone")
    assert (names(ann), stat.S_IMODE(ann.path.stat().st_mode)) == (["Ann-s-phone"], 0o600)
    async with telling(
        ann.directory,
        ann.path,
        lambda settings: outlet_of(settings, server.network()),
        page_of=lambda message: f"{CONTACT}/told/{message}",
        relay="relay.example.org",
        drop=browsers.drop,
    ):
        ann.fleet.asks("laptop-app", "per_1")
        await eventually_async(lambda: len(server.got) == 1)
        read = browser.read(server.got[0])
        assert (read["url"], read["tag"]) == (f"{CONTACT}/told/{read['id']}", f"relay.example.org/{read['id']}")
        server.behaviour = 410
        with changing_people(ann.path) as people:
            people["ann"] = ToldPerson(outlets=people["ann"].outlets, rules=NoticeRules(grouping_seconds=0))
        ann.fleet.asks("desk-api", "per_2")
        await eventually_async(lambda: names(ann) == [])
        await eventually_async(lambda: [each.state for each in ann.ledger.deliveries(1)] == ["failed"])
    assert ann.ledger.outlets() == []  # what is gone fails no more


async def test_a_browser_that_comes_again_is_one(ann: Told, browsers: Browsers, server: Receiver) -> None:
    subscription = FakeBrowser().subscription(server)
    for _ in range(2):
        assert await browsers.add("ann", subscription, "") == "browser"
    assert await browsers.add("ann", FakeBrowser().subscription(server, "/push/2"), "") == "browser-2"
    assert names(ann) == ["phone", "browser", "browser-2"]
    assert not browsers.remove("ben", subscription["endpoint"])
    assert load_people(ann.path).keys() == {"ann"}
    assert browsers.remove("ann", subscription["endpoint"])
    assert names(ann) == ["phone", "browser-2"]


async def test_a_person_has_five_browsers_at_most(ann: Told, browsers: Browsers, server: Receiver) -> None:
    for number in range(MAX_BROWSERS):
        await browsers.add("ann", FakeBrowser().subscription(server, f"/push/{number}"), "phone")
    before = ann.path.read_bytes()
    with pytest.raises(NotifyError, match="5 browsers already"):
        await browsers.add("ann", FakeBrowser().subscription(server), "phone")
    assert ann.path.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"endpoint": "http://push.example.org/x"}, "endpoint: must begin with https://"),
        ({"endpoint": "https://ann:secret@push.example.org/x"}, "endpoint: must have neither"),
        ({"endpoint": ""}, "endpoint: is no address"),
        ({"p256dh": "AAAA"}, "p256dh: is no key"),
        ({"auth": "AAAA"}, "auth: is no secret"),
    ],
)
async def test_what_is_no_subscription_is_refused(
    ann: Told, browsers: Browsers, server: Receiver, changed: dict[str, str], words: str
) -> None:
    with pytest.raises(BadOutlet, match=words):
        await browsers.add("ann", {**FakeBrowser().subscription(server), **changed}, "phone")
    assert names(ann) == ["phone"]


async def test_a_page_cannot_have_the_gateway_ask_a_private_address(ann: Told, server: Receiver) -> None:
    browsers = Browsers(ann.path, CONTACT, server.network(allows=lambda address: address != "127.0.0.1"))
    hostile = {**FakeBrowser().subscription(server), "allow_private": "true"}
    with pytest.raises(NotifyError, match="at no public address"):
        await browsers.add("ann", hostile, "phone")
    server.names[NAME] = []
    with pytest.raises(NotifyError, match="cannot be looked up"):
        await browsers.add("ann", hostile, "phone")
    assert names(ann) == ["phone"]


async def test_pages_and_commands_that_change_the_file_at_once_lose_nothing(
    ann: Told, browsers: Browsers, server: Receiver, tmp_path: Path
) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps({"public_url": CONTACT, "data_dir": str(tmp_path)}))

    def add(name: str) -> None:
        words = ["--config", str(config), "notify", "add", name, "mail", "--kind", "webhook"]
        done = CliRunner().invoke(cli, words, input='{"url": "https://push.example.org/"}\n')
        assert done.exit_code == 0, done.output

    def change(name: str) -> None:
        for _ in range(20):
            with changing_people(ann.path) as people:
                people[name] = people["ann"]

    await asyncio.gather(
        browsers.add("ann", FakeBrowser().subscription(server), "laptop"),
        *(asyncio.to_thread(change, f"person{number}") for number in range(5)),
        asyncio.to_thread(add, "ben"),
        browsers.add("cay", FakeBrowser().subscription(server), "phone"),
    )
    assert load_people(ann.path).keys() == {"ann", "ben", "cay", *(f"person{number}" for number in range(5))}
    assert names(ann) == ["phone", "laptop"]


async def test_the_key_stays_and_is_nobody_else_s(ann: Told, browsers: Browsers, tmp_path: Path) -> None:
    key = browsers.public_key()
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert Browsers(ann.path, CONTACT).public_key() == key
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(NotifyError, match="open to others"):
        browsers.public_key()
    (tmp_path / KEY_FILE).chmod(0o600)
    (tmp_path / KEY_FILE).write_text("no key")
    with pytest.raises(NotifyError, match="is damaged: remove it"):
        browsers.public_key()
