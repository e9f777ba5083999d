"""Under which names, and in whose place, an instance is registered, and what is written about it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from opencode_relay.channel import Channel
from opencode_relay.clients import EnrolledMachine
from opencode_relay.conversation import Conversation
from opencode_relay.limits import ClientLog
from opencode_relay.registrar import Registrar
from relay.raw_client import ID, OTHER_ID, RawClient, hello
from support.opencodes.fake_health import FakeHealth
from support.ports import is_open
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from relay.provisioned import ProvisionedRelay

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
"""Of the right shape, and nobody's."""

TRAVERSALS = [
    "../escaped",
    "/etc/passwd",
    "..",
    "a/../../b",
    "laptop/../../b",
    "laptop-\x00",
    "laptop-\n",
    "laptop\\x",
]


@pytest.mark.parametrize(
    "name", [*TRAVERSALS, "", "laptop-" + "x" * 60, "x" * 60, "laptop-\u202etxt", 7, None, ["x"]]
)
def test_a_name_that_is_no_name_is_refused(relay: ProvisionedRelay, opencode: FakeHealth, name: object) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        answer = client.ask(hello(port=port) | {"file": {**hello(port=port)["file"], "name": name}})
        assert answer["code"] == "bad-name"
        assert relay.registrations() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": ""},
        {"hostname": 1},
        {"cwd": "x" * 5000},
        {"localPort": 80},
        {"localPort": "4096"},
        {"connectedAt": "soon"},
        {"cwd": "\ud800"},
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_a_field_that_is_not_allowed_is_refused(
    relay: ProvisionedRelay, opencode: FakeHealth, change: dict[str, object]
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        message = hello(port=port)
        assert client.ask(message | {"file": message["file"] | change})["code"] == "bad-hello"


@pytest.mark.parametrize("change", [{"v": 2}, {"v": None}, {"id": "x"}, {"id": "F" * 32}, {"id": 5}, {"file": []}])
def test_a_hello_of_another_shape_is_refused(relay: ProvisionedRelay, change: dict[str, object]) -> None:
    with RawClient(relay, "laptop") as client:
        assert client.ask(hello(port=1024) | change)["code"] == "bad-hello"


def test_what_a_client_claims_about_itself_is_not_what_is_written(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    claims = {"client": "desktop", "closedAt": "2026-11-24T16:00:00Z", "token": "secret", "name": "desktop-site"}
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        message = hello(port=port)
        message["file"] |= claims
        assert client.ask(message)["name"] == "laptop-desktop-site"
        assert relay.registrations().keys() == {"laptop-desktop-site"}
        written = relay.registrations()["laptop-desktop-site"]
        assert written["client"] == "laptop"
        assert written.keys() == {"name", "hostname", "port", "localPort", "cwd", "connectedAt", "client"}


def test_a_reconnect_takes_over_and_ends_the_older_connection(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    first, second = relay.ports_of("laptop")[:2]
    reaped = relay.log.read_text().count("ended a connection without a session")
    with RawClient(relay, "laptop", forward=first, to=opencode.port) as old:
        old.ask(hello(port=first, name="laptop-old"))
        old.process.send_signal(signal.SIGSTOP)  # it will not hang up by itself
        with RawClient(relay, "laptop", forward=second, to=opencode.port) as new:
            assert new.ask(hello(port=second))["type"] == "registered"
            relay.until_registered("laptop-api")
            assert relay.registrations()["laptop-api"]["port"] == second
            eventually(lambda: not is_open(first), "the older one's port is free")
            # At once, that is, and not when its silence was noticed, or what it left behind.
            relay.until_logged("laptop-old on port")
            relay.until_logged("is gone: a newer connection of the instance took over")
            assert relay.log.read_text().count("ended a connection without a session") == reaped
            assert new.ask({"type": "ping", "n": 1})["health"] == "ok"


def test_another_instance_gets_neither_the_name_nor_the_port_of_one_that_lives(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    first, second = relay.ports_of("laptop")[:2]
    with (
        RawClient(relay, "laptop", forward=first, to=opencode.port) as old,
        RawClient(relay, "laptop", forward=second, to=opencode.port) as new,
    ):
        old.ask(hello(port=first))
        taken = new.ask(hello(port=second, instance_id=OTHER_ID))
        assert (taken["code"], taken["holder"]) == ("name-taken", "ann.example")
        assert new.ask(hello(port=first, name="laptop-2", instance_id=OTHER_ID))["code"] == "bad-port"
        assert new.ask(hello(port=second, name="laptop-2", instance_id=OTHER_ID))["type"] == "registered"
        assert old.ask({"type": "ping", "n": 1})["health"] == "ok"
        relay.until_registered("laptop-2", "laptop-api")


def test_the_id_of_an_instance_is_worth_nothing_to_another_client(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    mine, theirs = relay.ports_of("laptop")[0], relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop", forward=mine, to=opencode.port) as victim,
        RawClient(relay, "desktop", forward=theirs, to=opencode.port) as thief,
    ):
        victim.ask(hello(port=mine, instance_id=ID))
        assert thief.ask(hello(port=theirs, instance_id=ID))["name"] == "desktop-laptop-api"
        assert victim.ask({"type": "ping", "n": 1})["health"] == "ok"
        relay.until_registered("laptop-api", "desktop-laptop-api")


def test_one_session_has_one_registration(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        for number in range(5):
            assert client.ask(hello(port=port, name=f"laptop-{number}"))["type"] == "registered"
            living = [name for name, file in relay.registrations().items() if "closedAt" not in file]
            assert living == [f"laptop-{number}"]
        relay.until_registered("laptop-4")


@pytest.mark.parametrize("next_id", [ID, OTHER_ID])
async def test_a_name_that_a_session_gave_up_ends_like_one_that_was_quit(tmp_path: Path, next_id: str) -> None:
    notes: list[Callable[[], None]] = []
    journal = ClientLog()
    registrar = Registrar(tmp_path, journal, notes.append)
    with FakeHealth() as first, FakeHealth() as second, client_here() as (channel, say):
        conversation = Conversation(
            EnrolledMachine(
                name="laptop", first=min(first.port, second.port), last=max(first.port, second.port), key=KEY
            ),
            channel,
            ends=None,
            tunnel_uid=os.getuid(),
            registrar=registrar,
            journal=journal,
            superseded=lambda entry: None,
        )
        say(hello(port=first.port))
        say(hello(port=second.port, name="laptop-2", instance_id=next_id))
        talking = asyncio.create_task(conversation.hold())
        await eventually_async(lambda: conversation.entry is not None and conversation.entry.name == "laptop-2")
        assert "closedAt" in json.loads((tmp_path / "laptop-api.json").read_text())
        for clear in notes:
            clear()
        assert [path.name for path in tmp_path.iterdir()] == ["laptop-2.json"]
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


@contextmanager
def client_here() -> Iterator[tuple[Channel, Callable[[dict[str, Any]], None]]]:
    """Yield the relay's end of a connection, and what says something at the other, which hears nothing."""
    incoming, into = os.pipe()
    channel = Channel(incoming, os.open(os.devnull, os.O_WRONLY))
    with closing(channel), open(into, "w") as mouth:  # noqa: PTH123 # a descriptor, not a path
        yield channel, lambda message: print(json.dumps(message), file=mouth, flush=True)


def test_a_registration_that_somebody_removed_or_replaced_is_written_again(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        path = relay.registry / "laptop-api.json"
        written = path.read_bytes()
        for change in (path.unlink, lambda: path.write_text("{}"), lambda: replace_by_link(path)):
            change()
            assert client.ask({"type": "ping", "n": 1})["type"] == "pong"
            assert not path.is_symlink()
            assert path.read_bytes() == written


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")
