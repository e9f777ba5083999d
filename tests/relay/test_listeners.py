"""Whose a listening port is, by the kernel's word."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from opencode_relay.listeners import Listeners
from relay.provisioned import free_range

ME, SOMEBODY = os.getuid(), 60_000


def listen(address: str, family: socket.AddressFamily = socket.AF_INET, port: int = 0) -> socket.socket:
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    listener.listen()
    return listener


def listeners(port: int) -> Listeners:
    return Listeners(range(port, port + 1))


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_a_port_is_its_listeners_and_nobody_elses() -> None:
    with listen("127.0.0.1") as listener:
        port = port_of(listener)
        assert listeners(port).verdict(port, ME) == "ok"
        assert listeners(port).verdict(port, SOMEBODY) == "foreign"
        assert listeners(port).free(range(port, port + 1)) == []
    assert listeners(port).verdict(port, ME) == "foreign"
    assert listeners(port).free(range(port, port + 1)) == [port]


@pytest.mark.parametrize(
    ("address", "family"),
    [("0.0.0.0", socket.AF_INET), ("127.0.0.2", socket.AF_INET), ("::", socket.AF_INET6), ("::1", socket.AF_INET6)],
)
def test_what_listens_elsewhere_than_on_127_0_0_1_is_exposed(address: str, family: socket.AddressFamily) -> None:
    with listen(address, family) as listener:
        assert listeners(port_of(listener)).verdict(port_of(listener), ME) == "exposed"


def test_a_second_listener_beyond_loopback_exposes_the_port_too() -> None:
    with listen("127.0.0.1") as listener, listen("::", socket.AF_INET6, port_of(listener)):
        assert listeners(port_of(listener)).verdict(port_of(listener), ME) == "exposed"


def test_a_connection_is_no_listener() -> None:
    with listen("127.0.0.1") as listener, socket.create_connection(listener.getsockname()) as connection:
        port = connection.getsockname()[1]
        assert listeners(port).verdict(port, ME) == "foreign"


def test_of_a_range_its_first_and_its_last_port_are_told_and_none_beside_it() -> None:
    ports = free_range(4)
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(listen("127.0.0.1", port=port))
        asked = Listeners(ports[1:3])
        assert [asked.verdict(port, ME) for port in ports] == ["foreign", "ok", "ok", "foreign"]
