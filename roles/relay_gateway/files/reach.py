"""Tell what answers at a name, as clients out there see it: reach.py NAME WORD PORT[=]… It runs on the controller.

A port of the relay says WORD; behind a port with `=` is something that need not. It prints {"address port": outcome}:
`here`, `elsewhere`, `silent`, or `no way` where this machine itself has no route; {} for a name without addresses.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 6.0
"""Seconds, for an address to be heard. It may not listen yet."""


def main(name: str, word: str, *ports: str) -> dict[str, str]:
    """Ask each port at each address, all at once."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return {}
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    with ThreadPoolExecutor(len(addresses) * len(ports)) as pool:
        asked = {
            f"{address} {port.rstrip('=')}": pool.submit(
                outcome, address, int(port.rstrip("=")), None if port.endswith("=") else word
            )
            for address in addresses
            for port in ports
        }
        return {what: answer.result() for what, answer in asked.items()}


def outcome(address: str, port: int, word: str | None) -> str:
    """Ask one port."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((address, port), PATIENCE) as connection:
                return "here" if word is None or heard(connection, len(word)) == word else "elsewhere"
        except ConnectionRefusedError:
            if time.monotonic() > until:
                return "silent"
            time.sleep(0.2)
        except TimeoutError:
            return "silent"
        except OSError:
            return "no way"


def heard(connection: socket.socket, size: int) -> str:
    """Return what it says by itself, until it has said enough or nothing more."""
    said = b""
    connection.settimeout(PATIENCE)
    try:
        while len(said) < size and (more := connection.recv(size)):
            said += more
    except OSError:
        pass
    return said.decode(errors="replace")


print(json.dumps(main(*sys.argv[1:])))
