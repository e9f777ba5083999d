"""How much of the relay one client can take."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from relay.raw_client import RawClient, hello
from support.waiting import eventually

if TYPE_CHECKING:
    from relay.provisioned import ProvisionedRelay
    from support.fake_health import FakeHealth


def test_a_client_that_has_all_its_connections_open_is_told_so(relay: ProvisionedRelay) -> None:
    limit = 2 * len(relay.ports_of("laptop"))
    with ExitStack() as stack:
        for _ in range(limit):
            assert stack.enter_context(RawClient(relay, "laptop")).first["type"] == "ready"
        with RawClient(relay, "laptop") as too_many:
            assert too_many.first["code"] == "not-allowed"
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


def test_a_flood_of_messages_waits_in_its_own_connection(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop") as flood,
        RawClient(relay, "desktop", forward=port, to=opencode.port) as other,
    ):
        flood.send(b'{"type":"ping","n":1}\n' * 2_000)
        assert other.ask(hello(port=port, name="desktop-site"))["type"] == "registered"
        for number in range(5):
            assert other.ask({"type": "ping", "n": number})["n"] == number
        answered = 0
        while answered < 100:  # the burst that is allowed
            flood.receive()
            answered += 1
        assert flood.unread < 1_000, "the agent answers as fast as it is asked"
