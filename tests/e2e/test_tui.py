"""An OpenCode with a screen: whoever types there keeps it, and is told what happens from afar."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pexpect
import pytest

from support.chat.mcp_client import relay_client
from support.chat.plain_http import NO_TLS
from support.fleet.registry import register, registration
from support.ports import free_port
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient
    from support.opencodes.opencode import OpenCodeHome

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]")


class Screen:
    """OpenCode's screen in a terminal of its own: all that was ever drawn on it."""

    def __init__(self, home: OpenCodeHome, cwd: Path, port: int) -> None:
        cwd.mkdir()
        self._drawn: list[str] = []
        self._child = pexpect.spawn(
            str(home.binary),
            ["--port", str(port)],
            cwd=str(cwd),
            env=home.environment({"TERM": "xterm-256color"}),
            dimensions=(50, 140),
            encoding="utf-8",
            codec_errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._drawn.append(self._child.read_nonblocking(65_536, timeout=None))
            except (pexpect.EOF, ValueError):
                return

    @property
    def text(self) -> str:
        """What was drawn, without escapes."""
        return _ESCAPES.sub("", "".join(self._drawn))

    def type(self, keys: str) -> None:
        """Press keys, as a person there."""
        self._child.send(keys)

    def end(self) -> None:
        """End OpenCode as a person does who closes the terminal."""
        self._child.kill(15)
        self._reader.join(20)
        self._child.close(force=True)


@contextmanager
def on_screen(home: OpenCodeHome, cwd: Path, port: int) -> Iterator[Screen]:
    """Run OpenCode with a screen until it serves and shows its prompt."""
    screen = Screen(home, cwd, port)
    try:
        eventually(lambda: is_healthy(port), f"OpenCode on port {port}", within=60)
        eventually(lambda: "Ask anything" in screen.text, "its prompt", within=60)
        yield screen
    finally:
        screen.end()


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/global/health", verify=NO_TLS).status_code == 200
    except httpx.HTTPError:
        return False


async def is_idle(client: RelayClient) -> bool:
    return [row["state"] for row in (await client.call("instances")).structured["instances"]] == ["idle"]


@pytest.mark.generations(1)  # no screen of OpenCode 2 can be told which session to show
@pytest.mark.timeout(240)
async def test_a_new_session_takes_nobodys_screen_and_is_said_there(
    home: OpenCodeHome, tmp_path: Path, registry_dir: Path
) -> None:
    port = free_port()
    with on_screen(home, tmp_path / "project", port) as screen:
        register(registry_dir, registration("desk", port))
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: is_idle(client), within=30)
            screen.type("half-a-thought")
            await eventually_async(lambda: "half-a-thought" in screen.text, within=30)
            # The answer is a word that no prompt holds, without a blank, which the screen may skip.
            afar = await client.call("send", instance="desk", message="SLOW:1:0", session="new")
            assert afar.structured["result"] == "done"
            await eventually_async(lambda: "afar" in screen.text, within=30)

            # What was typed goes where the person meant it to go.
            screen.type("\r")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=NO_TLS, timeout=60) as http:
                own = await eventually_async(lambda: session_of(http, besides=afar.structured["session"]), within=60)
                # Until then it may be idle as nothing has begun yet.
                await eventually_async(lambda: has_answered(http, own), within=60)
            assert "word1" not in screen.text
            await eventually_async(lambda: is_idle(client), within=60)

            asked = await client.call("send", instance="desk", message="[BASH:echo at-the-screen]", session=own)
            assert asked.structured.get("result") == "needs-permission", asked.text
            await eventually_async(lambda: "Permission required" in screen.text, within=60)

            # Whoever is there decides, and the phone is told by whom.
            (ask,) = asked.structured["asks"]
            screen.type("\r")
            await eventually_async(lambda: is_idle(client), within=60)
            late = await client.call("reply", instance="desk", ask=ask["id"], answer="once")
            assert late.is_error
            assert "settled by somebody else (once)" in late.text

            # What is done from afar is seen there.
            await client.call("control", instance="desk", action="rename", session=own, value="renamed-afar")
            await eventually_async(lambda: "renamed-afar" in screen.text, within=30)
            shown = await client.call("control", instance="desk", action="undo", session=own)
            await client.call("control", instance="desk", action="undo", session=own, plan=shown.structured["plan"])
            await eventually_async(lambda: "reverted" in screen.text, within=30)


async def has_answered(http: httpx.AsyncClient, session: str) -> bool:
    """Tell whether the newest message of the session is an answer that has ended."""
    messages = (await http.get(f"/session/{session}/message")).json()
    newest = messages[-1]["info"] if messages else {"role": "none"}
    return newest["role"] == "assistant" and "completed" in newest["time"]


async def session_of(http: httpx.AsyncClient, *, besides: str) -> str | None:
    """Return the session that holds the typed line, once it is there."""
    for session in (await http.get("/session")).json():
        if session["id"] != besides:
            messages = (await http.get(f"/session/{session['id']}/message")).json()
            if any(part.get("text") == "half-a-thought" for message in messages for part in message["parts"]):
                return str(session["id"])
    return None
