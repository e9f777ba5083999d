"""Answer everybody with one word: listen.py WORD PORT… It runs on the relay until it is stopped."""

from __future__ import annotations

import selectors
import socket
import sys
from contextlib import suppress


def main(word: str, *ports: str) -> None:
    """Serve the ports, on IPv6 too where the host has it."""
    selector = selectors.DefaultSelector()
    for port in ports:
        if socket.has_dualstack_ipv6():
            listener = socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listener = socket.create_server(("", int(port)))
        selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            # A stranger who is gone already is no reason to end.
            with suppress(OSError), key.fileobj.accept()[0] as connection:
                connection.sendall(word.encode())


main(*sys.argv[1:])
