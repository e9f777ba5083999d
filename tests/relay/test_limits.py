"""How much of the relay one client can take."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from opencode_common.bucket import Bucket
from opencode_relay.channel import Channel
from opencode_relay.clients import EnrolledMachine
from opencode_relay.conversation import Conversation
from opencode_relay.limits import ClientLog
from opencode_relay.registrar import Registrar
from relay.provisioned import ProvisionedRelay
from relay.raw_client import RawClient, hello

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.fake_health import FakeHealth

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
    relay.until_logged("it sent a line without end")
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
    client = EnrolledMachine(name="laptop", first=20_000, last=20_003, key=KEY)
    journal = ClientLog()
    conversation = Conversation(
        client,
        channel,
        ends=None,
        tunnel_uid=0,
        registrar=Registrar(tmp_path, journal, lambda clear: None),
        journal=journal,
        superseded=lambda entry: None,
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


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_no_more_than_its_size_however_long_nothing_was_taken() -> None:
    clock = Clock()
    bucket = Bucket(2, 0.5, clock)
    clock.now = 1000.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 2.0
    assert [bucket.take() for _ in range(2)] == [True, False]
    assert [bucket.borrow() for _ in range(2)] == [2.0, 4.0]


def test_what_one_client_makes_the_journal_say_is_bounded_and_counted_and_no_other_client_is_silenced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    journal = ClientLog(clock)
    with caplog.at_level(logging.INFO):
        for number in range(1000):
            journal.write(logging.INFO, "laptop", "client %s registered %d", "laptop", number)
        journal.write(logging.WARNING, "desktop", "refused client %s", "desktop")
        clock.now = 59.0
        journal.count()
        said = [record.getMessage() for record in caplog.records]
        assert said[-1] == "refused client desktop"
        assert 2 <= len(said) <= 201
        clock.now = 60.0
        journal.count()
        journal.count()
    assert [record.getMessage() for record in caplog.records][len(said) :] == [
        f"client laptop: {1001 - len(said)} more lines about it were left out of this journal"
    ]


def test_sessions_that_register_again_and_again_cannot_fill_the_journal(tmp_path: Path, opencode: FakeHealth) -> None:
    with ProvisionedRelay(tmp_path, block=6) as relay, ExitStack() as stack:
        relay.enrol("laptop")
        ports = iter(relay.ports_of("laptop"))
        for number in range(3):
            one, other = next(ports), next(ports)
            forward = ["-R", f"127.0.0.1:{other}:127.0.0.1:{opencode.port}"]
            client = stack.enter_context(RawClient(relay, "laptop", *forward, forward=one, to=opencode.port))
            for _ in range(50):
                for port in (one, other):
                    answer = client.ask(hello(port=port, name=f"laptop-{number}", instance_id=str(number) * 32))
                    assert answer["type"] == "registered"
        relay.stop_agent()
        assert 200 <= relay.log.read_text().count("client laptop ") < 300
        relay.until_logged("more lines about it were left out of this journal")


def test_an_instance_has_few_names_a_minute_and_keeps_the_last(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        answers = [client.ask(hello(port=port, name=f"laptop-{number}")) for number in range(30)]
        names = [answer["name"] for answer in answers if answer["type"] == "registered"]
        assert 6 <= len(names) < 15
        assert {answer.get("code") for answer in answers} == {None, "unavailable"}
        assert client.ask(hello(port=port, name=names[-1]))["type"] == "registered"
        relay.until_registered(names[-1])
