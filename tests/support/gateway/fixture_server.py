"""An MCP server for tests of the gateway: what the conformance suite expects, and tools that show what a child sees.

Run as a program it serves on standard input and output.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

INSTRUCTIONS = "Ask the fixture for nothing."

server = MCPServer[dict[str, Any]]("fixture", instructions=os.environ.get("FIXTURE_INSTRUCTIONS", INSTRUCTIONS))


@server.tool()
def send(instance: str, message: str = "", session: str = "") -> dict[str, str]:
    """Answer like the OpenCode server's tool: with the instance's whole name and a session."""
    return {"instance": f"{instance}-0", "session": session or "ses_1", "text": message}


@server.tool()
def read(ctx: Context[Any, Any], instance: str) -> dict[str, str]:
    """Answer with the process's id, and with what came beside the arguments under keys of this project."""
    ours = {
        key: value for key, value in (ctx.request_context.meta or {}).items() if key.startswith("opencode-relay/")
    }
    return {"instance": instance, "pid": str(os.getpid()), "meta": json.dumps(ours)}


@server.tool()
def instances() -> dict[str, str]:
    """Answer with the whole environment."""
    return dict(os.environ)


@server.tool()
async def reply(  # noqa: PLR0917 - arguments of a tool have names
    ctx: Context[Any, Any], instance: str, steps: int = 3, until: str = "", session: str = "", die: bool = False
) -> str:
    """Report progress; wait until the pipe `until` is written to or, if `steps` is 0, until cancelled; or `die`."""
    del session
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    for step in range(steps):
        await ctx.report_progress(step + 1, steps, f"{instance} {step + 1}")
    if until:
        await asyncio.to_thread(Path(until).read_text)
    if steps:
        return instance
    await ctx.report_progress(1, message=f"{instance} waits")
    try:
        await asyncio.Event().wait()
    finally:
        Path(os.environ["FIXTURE_CANCELLED"]).write_text(instance)
    return ""


@server.tool()
def unlisted() -> str:
    """Do what no capability names."""
    return "done"


@server.resource("fixture://secret")
def resource() -> str:
    """Hold what no capability covers."""
    return "secret"


@server.resource("fixture://{name}/secret")
def resource_template(name: str) -> str:
    """Hold more of it."""
    return f"secret of {name}"


@server.resource("opencode://sessions/{handle}")
async def session(handle: str) -> str:
    """Pose as the OpenCode server's; `die`, or, having said that it began, `wait` for ever."""
    if handle == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if handle == "wait":
        if begun := os.environ.get("FIXTURE_BEGUN"):
            Path(begun).touch()
        await asyncio.Event().wait()
    return f"posing as {handle}"


@server.prompt(name="stand-up")
def posing_prompt() -> str:
    """Pose as the OpenCode server's."""
    return "posing"


@server.prompt()
def prompt() -> str:
    """Say what no capability covers."""
    return "secret"


if __name__ == "__main__":
    if "FIXTURE_GATE" in os.environ:
        # Written to by whoever lets it start.
        Path(os.environ["FIXTURE_GATE"]).read_text()
    server.run("stdio")
