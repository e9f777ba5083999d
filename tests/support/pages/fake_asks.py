"""Stands in for the OpenCode server behind the gateway: asks as documents, and a `reply` that says what it was told.

Run as a program it serves on standard input and output. What is asked and what came of it is in the files
`asks.json` and `replies.jsonl` of the directory `FAKE_ASKS`, which a test writes and reads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError

DIGEST = "0" * 32
ENTRY: dict[str, Any] = {"command": sys.executable, "args": [__file__]}

server = MCPServer[dict[str, Any]]("fake-asks")


class Asks:
    """What the server says, as a test has it."""

    def __init__(self, directory: Path) -> None:
        self._asks, self._replies = directory / "asks.json", directory / "replies.jsonl"

    def put(self, **changed: object) -> None:
        """Let one ask wait, `a3`; `changed` replaces what its document says, `earlier` are handles that it had."""
        ask = {
            "handle": "a3",
            "id": "per_1",
            "kind": "permission",
            "instance": "laptop",
            "summary": "bash: make test",
            "since": time.time(),
            "digest": DIGEST,
            "parts": [{"label": "Command", "text": "make test", "kind": "command"}],
        }
        self._asks.write_text(json.dumps(ask | changed))
        self._replies.write_text("")

    def change(self, **changed: object) -> None:
        """Let it be another one."""
        self._asks.write_text(json.dumps(self.ask() | changed))

    def ask(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._asks.read_text())
        return found

    def replied(self, **reply: object) -> None:
        with self._replies.open("a") as file:
            file.write(json.dumps(reply) + "\n")

    def replies(self) -> list[dict[str, Any]]:
        """Return the arguments of each reply, and what was told of its caller."""
        return [json.loads(line) for line in self._replies.read_text().splitlines()]


def _asks() -> Asks:
    return Asks(Path(os.environ["FAKE_ASKS"]))


@server.resource("opencode://inbox")
def inbox() -> str:
    """Say what waits."""
    ask = _asks().ask()
    waits = [ask] if ask.get("state", "open") == "open" else []
    return json.dumps({"asks": waits, "instances": 1})


@server.resource("opencode://asks/{handle}")
def ask_of_handle(handle: str) -> str:
    """Say all of an ask."""
    ask = _asks().ask()
    if handle not in {ask["handle"], *ask.get("earlier", ())}:
        raise ResourceNotFoundError("there is no such ask")
    return json.dumps(ask)


@server.resource("opencode://asks/{instance}/{id}")
def ask_of_id(instance: str, id: str) -> str:  # noqa: A002 - as the address has it
    """Say all of the ask, whichever was meant."""
    del instance, id
    return json.dumps(_asks().ask())


@server.tool()
def instances() -> str:
    """Be there."""
    return "laptop"


@server.tool()
def reply(ctx: Context[Any, Any], instance: str, answer: str | list[str] = "", ask: str = "") -> str:
    """Settle the ask, once; `die` of `FAKE_ASKS` ends it before it answers."""
    told = (ctx.request_context.meta or {}).get("opencode-relay/caller")
    asks = _asks()
    asks.replied(instance=instance, answer=answer, ask=ask, told=told)
    now = asks.ask()
    if now.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if now.get("state", "open") != "open":
        raise ToolError("bob settled it before, in the terminal")
    asks.change(state="settled")
    return "settled"


if __name__ == "__main__":
    server.run("stdio")
