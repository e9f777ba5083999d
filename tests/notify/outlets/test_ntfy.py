"""Notices to ntfy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_notify.kinds import outlet_of
from opencode_notify.notice import ACCEPTED, Notice
from support.pages.fake_ntfy import FakeNtfy

if TYPE_CHECKING:
    from opencode_notify.notice import Outlet
    from support.pages.fake_receiver import Receiver

ASK = Notice(id="a3.open", title="läptop needs you ✓", body="shell", priority=4, url="https://relay.example.org/a/3")


@pytest.fixture
def ntfy(server: Receiver) -> FakeNtfy:
    return FakeNtfy(server, "t0pic", "tk_1")


@pytest.fixture
def outlet(server: Receiver) -> Outlet:
    settings = {"kind": "ntfy", "server": server.url(), "topic": "t0pic", "token": "tk_1"}
    return outlet_of(settings, server.network())


async def test_a_notice_is_published_with_what_it_has(outlet: Outlet, ntfy: FakeNtfy) -> None:
    assert await outlet.send(ASK) == ACCEPTED
    (message,) = ntfy.shown.values()
    assert message == {
        "title": "läptop needs you ✓",
        "message": "shell",
        "priority": 4,
        "click": "https://relay.example.org/a/3",
    }


async def test_a_repeat_and_a_later_one_in_its_place_are_shown_as_one(outlet: Outlet, ntfy: FakeNtfy) -> None:
    await outlet.send(replace(ASK, tag="asks"))
    await outlet.send(replace(ASK, tag="asks"))
    await outlet.send(replace(ASK, id="a4.open", tag="asks", title="two asks"))
    assert {place: message["title"] for place, message in ntfy.shown.items()} == {"asks": "two asks"}


async def test_what_was_settled_elsewhere_is_cleared_and_the_others_stay(outlet: Outlet, ntfy: FakeNtfy) -> None:
    other = replace(ASK, id="a4.open", title="another")
    await outlet.send(ASK)
    await outlet.send(other)
    await outlet.withdraw(ASK)
    assert [message["title"] for message in ntfy.shown.values()] == ["another"]
    assert await outlet.send(replace(other, withdrawn=True)) == ACCEPTED
    assert ntfy.shown == {}


async def test_a_long_text_is_cut_within_a_character_of_its_limit(outlet: Outlet, ntfy: FakeNtfy) -> None:
    await outlet.send(replace(ASK, body="é€" * 3_000))
    (message,) = ntfy.shown.values()
    assert 4_090 < len(message["message"].encode()) <= 4_096
    assert message["message"].endswith("…")


async def test_a_withdrawal_that_fails_raises_nothing(server: Receiver, outlet: Outlet) -> None:
    server.behaviour = 500
    await outlet.withdraw(ASK)
    assert len(server.got) == 1


async def test_a_server_below_a_path_is_reached_there(server: Receiver) -> None:
    settings = {"kind": "ntfy", "server": server.url() + "/ntfy/", "topic": "t"}
    outlet = outlet_of(settings, server.network())
    await outlet.send(ASK)
    await outlet.withdraw(replace(ASK, tag="one"))
    assert [request.path for request in server.got] == ["/ntfy/", "/ntfy/t/one/clear"]
    assert "authorization" not in server.got[0].headers
