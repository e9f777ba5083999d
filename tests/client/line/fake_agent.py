"""The forced command of a provisioned relay, as far as launchers care. Run as `python fake_agent.py CLIENT PORT…`."""

from __future__ import annotations

import json
import socket
import sys


def is_free(port: int) -> bool:
    """Tell whether nothing listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def say(**fields: object) -> None:
    """Send a message."""
    print(json.dumps(fields), flush=True)


def main(client: str, *block: str) -> None:
    """Serve one launcher."""
    free = [int(port) for port in block if is_free(int(port))]
    say(type="ready", v=1, agent="fake", client=client, ports=free)
    for line in sys.stdin:
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        if message["type"] == "hello":
            name = message["file"]["name"]
            name = name if name.startswith(client) else f"{client}-{name}"
            if len(name) <= 64:
                say(type="registered", name=name, health="ok")
            else:
                say(type="error", code="bad-name", message="the name is too long")
        elif message["type"] == "ping":
            say(type="pong", n=message["n"], health="ok")
        elif message["type"] == "probe":
            say(type="probed", port=message["port"], health="ok")
        elif message["type"] == "query":
            say(type="end")
        elif message["type"] == "bye":
            return


main(*sys.argv[1:])
