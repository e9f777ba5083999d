"""A connection that says nothing, or not even who it is, ends."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from opencode_relay.limits import ClientLog
from opencode_relay.processes import SshConnection, connections, without_session
from opencode_relay.reaper import Reaper
from relay.raw_client import RawClient, hello
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    import pytest

    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth


def test_the_agent_ends_a_connection_without_a_session_and_a_session_without_messages(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    # Side by side, as each takes its time: 10 to 12 s for the first, 12 s for the second.
    mine, theirs = relay.ports_of("laptop")[0], relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop", "-N", forward=mine, to=opencode.port) as bare,
        RawClient(relay, "desktop", forward=theirs, to=opencode.port) as silent,
    ):
        eventually(lambda: is_open(mine), "it listens unseen")
        assert silent.ask(hello(port=theirs, name="desktop-site"))["type"] == "registered"
        silent.send(b"")  # no message, though a line
        bare.wait()
        silent.wait()
        relay.until_registered()
        eventually(lambda: not is_open(mine) and not is_open(theirs), "the ports are free")
    relay.until_logged("ended a connection without a session (sshd's process ")
    relay.until_logged("instance desktop-site on port")
    relay.until_logged("it said nothing for 12 s")


def test_only_connections_without_a_session_are_ended_and_only_when_they_had_time_to_begin_one(
    relay: ProvisionedRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.stop_agent()  # whose own reaper would come in between
    try:
        with RawClient(relay, "laptop", "-N", forward=relay.ports_of("laptop")[0], to=1) as bare:
            (pid,) = eventually(lambda: without_session(relay.tunnel_uid), "a connection without a session")
            assert SshConnection.open(pid, relay.tunnel_uid + 1) is None
            reaper = Reaper(relay.tunnel_uid, ClientLog())
            reaper.sweep({pid}, now=0.0)  # a session: of no concern
            reaper.sweep(set(), now=100.0)
            reaper.sweep(set(), now=109.9)
            assert bare.process.poll() is None
            assert connections(relay.tunnel_uid) == {pid}
            reaper.sweep(set(), now=110.0)
            bare.wait()
        assert "without a session" in caplog.text
        eventually(lambda: not connections(relay.tunnel_uid), "sshd's process is gone")
        reaper.sweep(set(), now=111.0)
    finally:
        relay.start_agent()


def test_a_connection_that_does_not_heed_sigterm_is_killed(relay: ProvisionedRelay) -> None:
    relay.stop_agent()
    try:
        with RawClient(relay, "laptop", "-N", forward=relay.ports_of("laptop")[0], to=1) as bare:
            (pid,) = eventually(lambda: without_session(relay.tunnel_uid), "a connection without a session")
            os.kill(pid, signal.SIGSTOP)
            reaper = Reaper(relay.tunnel_uid, ClientLog())
            for now in (0.0, 10.0, 12.0):
                reaper.sweep(set(), now=now)
            bare.wait()
            eventually(lambda: not connections(relay.tunnel_uid), "sshd's process is gone")
    finally:
        relay.start_agent()
