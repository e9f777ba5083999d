"""A real MCP client (the SDK's) with the real server command, `opencode-mcp`, as its child on stdio."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, TextContent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from mcp_types import Tool

SERVER_COMMAND = Path(sys.executable).parent / "opencode-mcp"
"""The server as this environment has it installed."""

Era = Literal["legacy", "auto", "2026-07-28"]
"""Protocol era: the initialize handshake (2025-11-25), the version without one, or whatever the server offers."""

_CALL_SECONDS = 120.0
"""A call that takes longer than this hangs."""


@dataclass(frozen=True)
class Progress:
    """A progress notification: when it came (`time.monotonic`, seconds) and its message."""

    at: float
    message: str


@dataclass(frozen=True)
class Answer:
    """What a tool call came to."""

    text: str
    structured: dict[str, Any]
    """The structured output; empty where there is none."""
    is_error: bool
    progress: tuple[Progress, ...]


class ToolClient:
    """A connected client: `call` its tools; what they say comes back as an `Answer`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def tools(self) -> dict[str, Tool]:
        """Return the server's tools by name."""
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    async def call(
        self, tool: str, *, on_progress: Callable[[Progress], None] | None = None, **arguments: object
    ) -> Answer:
        """Call `tool` and wait for its answer; `on_progress` is called for what comes in mid-call."""
        notes: list[Progress] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            del progress, total
            notes.append(Progress(time.monotonic(), message or ""))
            if on_progress:
                on_progress(notes[-1])

        result = await self.client.call_tool(
            tool, arguments, read_timeout_seconds=_CALL_SECONDS, progress_callback=note
        )
        return _answer(result, notes)


class RelayClient(ToolClient):
    """A client whose server, a child of its own, one can look into."""

    def __init__(self, client: Client, pid_file: Path, stderr_file: Path) -> None:
        super().__init__(client)
        self._pid_file = pid_file
        self._stderr_file = stderr_file

    @property
    def server_pid(self) -> int:
        """The server's process."""
        return int(self._pid_file.read_text())

    @property
    def stderr(self) -> str:
        """What the server has written to stderr so far."""
        return self._stderr_file.read_text(errors="replace")


def _answer(result: CallToolResult, progress: list[Progress]) -> Answer:
    text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    return Answer(text, result.structured_content or {}, bool(result.is_error), tuple(progress))


@asynccontextmanager
async def relay_client(
    registry_dir: Path, *, era: Era = "2026-07-28", env: Mapping[str, str] | None = None
) -> AsyncIterator[RelayClient]:
    """Start the server on `registry_dir` and connect to it; on leaving, the server is ended.

    Enter and leave it within one task (inside the test, not in an async fixture): the SDK demands that.
    `env` is added to the server's environment, which holds little else.
    """
    failure: Exception | None = None
    with (
        tempfile.NamedTemporaryFile("r", prefix="relay-client-pid-") as pid_file,
        tempfile.NamedTemporaryFile("w", prefix="relay-client-stderr-") as stderr,
    ):
        # The SDK keeps the child to itself; the shell in between tells its process id and becomes the server.
        server = StdioServerParameters(
            command="/bin/sh",
            args=["-c", 'echo $$ > "$1"; exec "$2"', "sh", pid_file.name, str(SERVER_COMMAND)],
            env={
                "RELAY_REGISTRY_DIR": str(registry_dir),
                "RELAY_STATE_DIR": f"{registry_dir}-state",
                **(env or {}),
            },
        )
        errlog = cast("TextIO", stderr.file)  # a TextIOWrapper, which typeshed calls IO[str]
        async with Client(stdio_client(server, errlog=errlog), mode=era) as client:
            try:
                yield RelayClient(client, Path(pid_file.name), Path(stderr.name))
            except Exception as error:  # noqa: BLE001 - raised again below, outside the SDK's task groups
                failure = error
    if failure:
        raise failure


@asynccontextmanager
async def held_relay_client(registry_dir: Path, *, era: Era = "2026-07-28") -> AsyncIterator[RelayClient]:
    """Like `relay_client`, for fixtures, whose two halves may run in different tasks."""
    connected: asyncio.Future[RelayClient] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with relay_client(registry_dir, era=era) as client:
            connected.set_result(client)
            await done.wait()

    holder = asyncio.create_task(hold())
    either: set[asyncio.Future[Any]] = {holder, connected}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if holder.done():
        await holder  # it could not start, and says why
    yield await connected
    done.set()
    await holder
