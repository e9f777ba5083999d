"""How much of the relay one client can take."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from opencode_relay.channel import Channel
from opencode_relay.clients import Client
from opencode_relay.conversation import Conversation
from opencode_relay.registrar import Registrar
from relay.raw_client import RawClient, hello
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from relay.provisioned import ProvisionedRelay
    from support.fake_health import FakeHealth

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
"""Of the right shape, and nobody's."""


def test_a_client_that_has_all_its_connections_open_is_told_so(relay: ProvisionedRelay) -> None:
    limit = 2 * len(relay.ports_of("laptop"))
    with ExitStack() as stack:
        for _ in range(limit):
            assert stack.enter_context(RawClient(relay, "laptop")).first["type"] == "ready"
        with RawClient(relay, "laptop") as too_many:
            assert too_many.first["code"] == "unavailable"  # the launcher tries again
            assert str(limit) in too_many.first["message"]
            too_many.wait()
        with RawClient(relay, "desktop") as other:
            assert other.first["type"] == "ready"


def test_a_hello_of_100_mb_ends_its_session_and_costs_the_agent_no_memory(relay: ProvisionedRelay) -> None:
    agent = psutil.Process(relay.agent.pid)
    before = agent.memory_info().rss
    with RawClient(relay, "laptop") as client:
        with pytest.raises(BrokenPipeError):
            client.send(b'{"type":"hello","v":1,"id":"' + b"0" * 100_000_000)
        client.wait()
    eventually(lambda: relay.logged("it sent a line without end"))
    assert agent.memory_info().rss - before < 5_000_000


def test_a_flood_of_messages_disturbs_no_other_client(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop") as flood,
        RawClient(relay, "desktop", forward=port, to=opencode.port) as other,
    ):
        assert flood.first["type"] == "ready"
        flood.send(b'{"type":"ping","n":1}\n' * 2_000)
        assert other.ask(hello(port=port, name="desktop-site"))["type"] == "registered"
        for number in range(5):
            assert other.ask({"type": "ping", "n": number})["n"] == number


async def test_after_a_burst_a_clients_messages_are_answered_at_a_pace(tmp_path: Path) -> None:
    incoming, into = os.pipe()
    outof, outgoing = os.pipe()
    channel = Channel(incoming, outgoing)
    client = Client(name="laptop", first=20_000, last=20_003, key=KEY)
    conversation = Conversation(
        client, channel, peer="", tunnel_uid=0, registrar=Registrar(tmp_path), superseded=lambda entry: None
    )
    os.write(into, b'{"type":"ping","n":1}\n' * 300)
    os.close(into)
    talking = asyncio.create_task(conversation.hold())
    answers = 0
    while answers <= 100:
        answers += (await asyncio.to_thread(os.read, outof, 65_536)).count(b"\n")
    # Without a pace it would have answered all of them in one go, and found the end of its input.
    assert answers < 150
    assert not talking.done()
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    channel.close()
    os.close(outof)
