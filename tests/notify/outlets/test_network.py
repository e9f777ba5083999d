"""What an outlet meets on its way, by the example of a webhook: each ends in a receipt, and none tells a secret."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from opencode_common.addresses import is_public
from opencode_notify.errors import BadOutlet
from opencode_notify.kinds import outlet_of
from opencode_notify.network import Network, receipt_of
from opencode_notify.notice import ACCEPTED, Notice, Receipt
from opencode_notify.outlets.webhook import new_secret
from support.ports import free_port

if TYPE_CHECKING:
    from support.pages.fake_receiver import Receiver

NOTICE = Notice(id="a3.open", title="laptop needs you", body="shell, in ~/work")
PATH = "/services/T000/very-secret-path"
SECRET = new_secret()


async def sent(server: Receiver, url: str = "", network: Network | None = None, **settings: object) -> Receipt:
    address = url or server.url() + PATH
    outlet = outlet_of({"kind": "webhook", "url": address, "secret": SECRET, **settings}, network or server.network())
    receipt = await outlet.send(NOTICE)
    assert "very-secret" not in receipt.reason
    assert "secret of the server" not in receipt.reason
    assert bool(receipt.reason) is not receipt.accepted
    return receipt


async def test_a_good_server_accepts_it_by_its_own_name(server: Receiver) -> None:
    assert await sent(server) == ACCEPTED
    assert server.got[0].headers["host"] == server.url().removeprefix("https://")


async def test_one_that_hangs_is_left_after_a_while(server: Receiver) -> None:
    server.behaviour = "hangs"
    receipt = await sent(server, network=server.network(seconds=0.5))
    assert receipt.retry
    assert "within 0.5 s" in receipt.reason


async def test_a_name_that_is_not_answered_for_is_left_after_a_while(server: Receiver) -> None:
    async def look_up(_: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await sent(server, network=Network(look_up=look_up, seconds=0.1))).retry


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_cannot_be_taken_now_is_tried_again(server: Receiver, status: int) -> None:
    server.behaviour, server.headers = status, {"Retry-After": "17"}
    receipt = await sent(server)
    assert (receipt.retry, receipt.gone, receipt.retry_after) == (True, False, 17.0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_what_is_refused_is_not_tried_again(server: Receiver, status: int) -> None:
    server.behaviour = status
    receipt = await sent(server)
    assert (receipt.retry, receipt.gone) == (False, False)
    assert str(status) in receipt.reason


async def test_one_that_says_it_is_gone_is_gone(server: Receiver) -> None:
    server.behaviour = 410
    assert (await sent(server)).gone


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(server: Receiver, status: int) -> None:
    server.behaviour, server.headers = status, {"Location": server.url() + "/elsewhere"}
    receipt = await sent(server)
    assert "redirects" in receipt.reason
    assert not receipt.retry
    assert [request.path for request in server.got] == [PATH]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "100.64.0.1"])
async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(server: Receiver, address: str) -> None:
    server.names = {"receiver.example.org": ["93.184.216.34", address]}
    receipt = await sent(server, network=server.network(is_public))
    assert "private address" in receipt.reason
    assert not receipt.retry
    assert server.got == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_private_address_that_is_written_out_is_not_connected_to(server: Receiver, host: str) -> None:
    receipt = await sent(server, f"https://{host}:{server.ports['https']}/", Network())
    assert not receipt.accepted
    assert server.got == []


async def test_a_private_address_that_is_allowed_is_connected_to_also_by_http(server: Receiver) -> None:
    network = server.network(is_public)
    assert await sent(server, network=network, allow_private=True) == ACCEPTED
    assert await sent(server, server.url("http"), network, allow_private=True) == ACCEPTED


async def test_a_name_is_looked_up_once_for_a_notice(server: Receiver) -> None:
    await sent(server)
    assert server.asked == ["receiver.example.org"]


async def test_the_next_address_of_a_name_is_tried_where_nothing_answers(server: Receiver) -> None:
    server.names = {"receiver.example.org": ["::1", "127.0.0.1"]}
    assert await sent(server) == ACCEPTED


async def test_an_unknown_name_is_tried_again(server: Receiver) -> None:
    receipt = await sent(server, server.url(name="unknown.example.org"))
    assert receipt.retry
    assert "not found now" in receipt.reason


async def test_a_closed_port_is_tried_again(server: Receiver) -> None:
    assert (await sent(server, f"https://receiver.example.org:{free_port()}")).retry


async def test_a_certificate_of_another_name_or_of_nobody_known_is_not_trusted(server: Receiver) -> None:
    server.names["other.example.org"] = ["127.0.0.1"]
    assert "certificate" in (await sent(server, server.url(name="other.example.org"))).reason
    stranger = Network(look_up=server.look_up, allows=lambda _: True, tls=ssl.create_default_context())
    receipt = await sent(server, network=stranger)
    assert "certificate" in receipt.reason
    assert not receipt.retry
    assert server.got == []


async def test_one_that_speaks_no_tls_is_said_so(server: Receiver) -> None:
    receipt = await sent(server, f"https://receiver.example.org:{server.ports['http']}/")
    assert "TLS" in receipt.reason


async def test_garbage_is_no_answer(server: Receiver) -> None:
    server.behaviour = "garbage"
    receipt = await sent(server)
    assert receipt.retry
    assert "HTTP" in receipt.reason


async def test_a_huge_body_is_not_read(server: Receiver) -> None:
    server.behaviour = "huge"
    assert await sent(server) == ACCEPTED
    assert server.written < 50_000_000


async def test_nothing_of_an_address_is_logged(server: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await sent(server)
        server.behaviour = 500
        await sent(server)
    written = " ".join(record.getMessage() for record in caplog.records if record.name != "aiohttp.access")
    assert "very-secret" not in written
    assert "v1," not in written


def test_a_date_to_retry_after_is_understood_and_bounded() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    for text, low, high in ((in_a_minute, 30, 61), ("9" * 9, 86_400, 86_400), ("0", 0, 0)):
        seconds = receipt_of(503, {"retry-after": text}).retry_after
        assert seconds is not None
        assert low <= seconds <= high
    for text in ("", "soon", "-5", "9" * 500, "²"):
        assert receipt_of(503, {"retry-after": text}).retry_after is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://very-secret.example.org/", "must begin with https://"),
        ("ftp://very-secret.example.org/", "is no address"),
        ("very-secret", "is no address"),
        ("https:///very-secret", "is no address"),
        ("https://very-secret.example.org:very/", "is no address"),
        ("https://me:very-secret@example.org/", "neither a name with a password"),
        ("https://example.org/#very-secret", "neither a name with a password"),
        ("https://example.org/" + "very-secret" * 200, "longer than"),
        ("https://exam\nple.org/very-secret", "is no address"),
    ],
)
def test_a_wrong_address_is_named_and_not_quoted(address: str, said: str) -> None:
    with pytest.raises(BadOutlet, match=said) as refused:
        outlet_of({"kind": "webhook", "url": address, "secret": SECRET})
    assert str(refused.value).startswith("url: ")
    assert "very" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "kind: must be one of ntfy, webhook, web_push, apprise"),
        ({"kind": "pigeon"}, "kind: must be one of"),
        ({"kind": ["ntfy"]}, "kind: must be one of"),
        ({"kind": "webhook", "url": "https://example.org"}, "secret: Field required"),
        ({"kind": "webhook", "url": "https://example.org", "secret": "whsec_dmVyeQ=="}, "secret: must be"),
        ({"kind": "webhook", "url": "https://example.org", "secret": "very-secret"}, "secret: must be"),
        ({"kind": "ntfy", "topic": "very/secret"}, "topic: holds other characters"),
        ({"kind": "ntfy", "topic": "t", "token": "very\nsecret"}, "token: holds characters"),
        ({"kind": "ntfy", "topic": "t", "very": 1, "allow_private": "very"}, "allow_private"),
    ],
)
def test_wrong_settings_are_named_and_not_quoted(settings: dict[str, object], said: str) -> None:
    with pytest.raises(BadOutlet) as refused:
        outlet_of(settings)
    assert said in str(refused.value)
    assert "very-secret" not in str(refused.value)
