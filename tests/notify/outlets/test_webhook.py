"""Signed webhooks, verified by a library for receivers and by the program in the documentation."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from opencode_notify.kinds import outlet_of
from opencode_notify.notice import ACCEPTED, Notice
from opencode_notify.outlets.webhook import new_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_notify.notice import Outlet
    from support.pages.fake_receiver import Receiver

SECRET = new_secret()
ASK = Notice(id="a3.open", title="laptop needs you ✓", body="shell", priority=4, url="https://relay.example.org/a/3")
DOCUMENT = Path(__file__).parents[3] / "docs" / "notifications.md"


@pytest.fixture
def outlet(server: Receiver) -> Outlet:
    return outlet_of({"kind": "webhook", "url": server.url() + "/hook?k=1", "secret": SECRET}, server.network())


async def test_a_receiver_verifies_and_reads_it(server: Receiver, outlet: Outlet) -> None:
    assert await outlet.send(ASK) == ACCEPTED
    (got,) = server.got
    assert Webhook(SECRET).verify(got.body, dict(got.headers)) == {
        "version": 1,
        "id": "a3.open",
        "type": "notice",
        "tag": "a3.open",
        "title": "laptop needs you ✓",
        "body": "shell",
        "priority": 4,
        "url": "https://relay.example.org/a/3",
    }
    assert got.headers["opencode-relay-version"] == "1"
    for body, changed in ((got.body + b" ", {}), (got.body, {"webhook-id": "b"})):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, {**got.headers, **changed})


async def test_a_repeat_has_the_same_id_and_a_withdrawal_another(server: Receiver, outlet: Outlet) -> None:
    await outlet.send(ASK)
    await outlet.send(ASK)
    await outlet.withdraw(ASK)
    await outlet.send(replace(ASK, id="ä\r\nx: y"))
    ids = [got.headers["webhook-id"] for got in server.got]
    assert ids[:3] == ["a3.open", "a3.open", "a3.open.withdrawn"]
    assert re.fullmatch(r"[0-9a-f]{64}", ids[3])
    assert json.loads(server.got[2].body)["type"] == "notice.withdrawn"


def documented() -> Callable[..., Any]:
    """Return `verified` of the documentation."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 - it is ours
    found: Callable[..., Any] = names["verified"]
    return found


async def test_the_documented_receiver_takes_it_and_no_other(server: Receiver, outlet: Outlet) -> None:
    await outlet.send(ASK)
    (got,) = server.got
    verified = documented()
    assert verified(SECRET, got.headers, got.body)["id"] == "a3.open"
    for secret, changed, body in (
        (new_secret(), {}, got.body),
        (SECRET, {"webhook-id": "a4"}, got.body),
        (SECRET, {"webhook-timestamp": "1000000000"}, got.body),
        (SECRET, {}, got.body.replace(b"shell", b"shelf")),
    ):
        with pytest.raises(ValueError, match="not from"):
            verified(secret, {**got.headers, **changed}, body)
