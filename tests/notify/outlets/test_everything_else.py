"""What Apprise sends: real mail to a real server, and services that fail."""

from __future__ import annotations

import asyncio
import email
import logging
import sys
from dataclasses import replace
from email import policy
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from opencode_common.addresses import is_public
from opencode_notify.errors import BadOutlet
from opencode_notify.kinds import outlet_of
from opencode_notify.network import Network
from opencode_notify.notice import ACCEPTED, Notice
from opencode_notify.outlets import everything_else
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_notify.notice import Outlet
    from support.pages.fake_receiver import Receiver

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise's own
ASK = Notice(id="a3.open", title="laptop needs you ✓", body="shell", url="https://relay.example.org/a/3")


class Mailbox:
    """Keeps the mails that came, for aiosmtpd."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        del server, session
        assert isinstance(envelope.content, bytes)
        self.mails.append(email.message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
async def post() -> AsyncIterator[tuple[Mailbox, int]]:
    box = Mailbox()
    serving = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    async with serving:
        yield box, serving.sockets[0].getsockname()[1]


def at(url: str, seconds: float = 30.0, **settings: object) -> Outlet:
    return outlet_of({"kind": "apprise", "url": url, "allow_private": True, **settings}, Network(seconds=seconds))


async def test_a_mail_arrives(post: tuple[Mailbox, int]) -> None:
    box, port = post
    outlet = at(f"mailto://127.0.0.1:{port}?from=relay@example.org&to=ann@example.org")
    assert await outlet.send(ASK) == ACCEPTED
    (mail,) = box.mails
    assert (mail["subject"], mail["to"]) == ("laptop needs you ✓", "ann@example.org")
    body = mail.get_body(("plain", "html"))
    assert body is not None
    assert "shell" in body.get_content()
    assert "https://relay.example.org/a/3" in body.get_content()


async def test_many_in_a_row_do_not_wait_for_each_other(post: tuple[Mailbox, int]) -> None:
    box, port = post
    # Apprise makes a second message of the same object wait for 5.5 s.
    outlet = at(f"mailto://127.0.0.1:{port}?from=relay@example.org&to=ann@example.org", seconds=4)
    assert [await outlet.send(ASK) for _ in range(3)] == [ACCEPTED] * 3
    assert len(box.mails) == 3


async def test_a_service_that_hangs_is_left_and_holds_up_no_other(server: Receiver) -> None:
    server.behaviour = "hangs"
    url = f"json://127.0.0.1:{server.ports['http']}/very-secret"
    # As the sender does: each notice has an outlet of its own.
    receipts = await asyncio.gather(*(at(url, seconds=0.5).send(ASK) for _ in range(8)))
    assert all(receipt.retry and not receipt.accepted for receipt in receipts)
    assert any("earlier ones" in receipt.reason for receipt in receipts)
    assert len(server.got) == everything_else.AT_ONCE
    server.behaviour = "well"
    assert await at(f"json://127.0.0.1:{server.ports['http']}/").send(ASK) == ACCEPTED


@pytest.mark.parametrize("behaviour", [500, 403, "garbage", 302])
async def test_a_service_that_refuses_fails_without_a_word_of_its_own(
    server: Receiver, behaviour: str | int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server.behaviour, server.headers = behaviour, {"Location": server.url("http", "127.0.0.1") + "/elsewhere"}
    with caplog.at_level(logging.DEBUG):
        outlet = at(f"json://ann:very-secret@127.0.0.1:{server.ports['http']}/very-secret?+x-token=very-secret")
        receipt = await outlet.send(ASK)
    assert (receipt.accepted, receipt.retry) == (False, True)
    assert {request.path for request in server.got} == {"/very-secret"}
    logged = " ".join(record.getMessage() for record in caplog.records if record.name != "aiohttp.access")
    written = receipt.reason + logged + "".join(capfd.readouterr())
    assert "very-secret" not in written
    assert "secret of the server" not in written


async def test_a_closed_port_fails() -> None:
    assert (await at(f"json://127.0.0.1:{free_port()}/").send(ASK)).retry


async def test_a_private_address_is_not_connected_to_unless_allowed(server: Receiver) -> None:
    network = server.network(is_public)
    for url in (f"json://receiver.example.org:{server.ports['http']}/", "mailto://ann:x@receiver.example.org"):
        receipt = await outlet_of({"kind": "apprise", "url": url}, network).send(ASK)
        assert "private address" in receipt.reason
    assert server.got == []


def test_a_token_that_stands_where_others_have_a_host_is_no_host() -> None:
    service = everything_else.service_of("tgram://123456789:abcdefg_hijklmnop/12315544/")
    assert everything_else.hosts_of(service) == []


async def test_nothing_is_taken_back_and_the_receipt_says_so(post: tuple[Mailbox, int]) -> None:
    box, port = post
    outlet = at(f"mailto://127.0.0.1:{port}?from=relay@example.org&to=ann@example.org")
    await outlet.withdraw(ASK)
    assert "nothing back" in (await outlet.send(replace(ASK, withdrawn=True))).reason
    assert box.mails == []


@pytest.mark.parametrize("url", ["very-secret", "nothing://very-secret", "syslog://very-secret", "dbus://"])
def test_an_address_that_is_none_is_not_quoted(url: str) -> None:
    with pytest.raises(BadOutlet, match="url: is no address") as refused:
        at(url)
    assert "very-secret" not in str(refused.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    everything_else.apprise.cache_clear()
    with pytest.raises(BadOutlet, match=r"opencode-relay\[notify\]"):
        at("json://localhost/")
    everything_else.apprise.cache_clear()
