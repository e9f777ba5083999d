"""Lines on standard input as clients really write them: each gets its answer, also one with half a character."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_common.half_characters import mended
from support.chat.mcp_client import SERVER_COMMAND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANSWER_SECONDS = 60
"""Far more than an answer takes on a loaded machine; without one the wait would have no end."""


@asynccontextmanager
async def greeted(registry_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the server and do the handshake."""
    process = await asyncio.create_subprocess_exec(
        SERVER_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "RELAY_REGISTRY_DIR": str(registry_dir)},
        limit=2**24,
    )
    client = {"name": "raw", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    try:
        await answered(process, json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
        await write(process, '{"jsonrpc":"2.0","method":"notifications/initialized"}')
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(ANSWER_SECONDS):
            assert await process.wait() == 0


async def write(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    await process.stdin.drain()


async def answered(process: asyncio.subprocess.Process, line: str) -> str:
    """Write a line and return the next one that comes."""
    await write(process, line)
    assert process.stdout is not None
    async with asyncio.timeout(ANSWER_SECONDS):
        return (await process.stdout.readline()).decode()


def call(argument: str) -> str:
    """Return a call that is refused with the name of its argument in the answer."""
    params = f'{{"name":"send","arguments":{{"{argument}":"x"}}}}'
    return f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}'


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (r"half \ud83d emoji", "half \ufffd emoji"),
        (r"half \uDE00 emoji", "half \ufffd emoji"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"whole \ud83d\ude00 emoji", "whole 😀 emoji"),
        (r"no escape \\ud83d at all", r"no escape \ud83d at all"),
    ],
)
async def test_a_line_with_half_a_character_is_answered(registry_dir: Path, written: str, said: str) -> None:
    async with greeted(registry_dir) as process:
        answer = json.loads(await answered(process, call(written)))
        assert answer["id"] == 7
        assert answer["result"]["isError"] is True
        assert answer["result"]["content"][0]["text"].startswith(f"`send` takes no {said}; ")


async def test_a_line_that_comes_in_pieces_and_is_long_is_read_whole(registry_dir: Path) -> None:
    async with greeted(registry_dir) as process:
        assert process.stdin is not None
        line = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x" * 300_000}})
        cut = line.index("x") + 150_000
        process.stdin.write(line[:cut].encode())
        await process.stdin.drain()
        answer = json.loads(await answered(process, line[cut:]))
        assert answer["id"] == 7


@given(st.text(st.characters(exclude_categories=[])))
def test_what_json_writes_of_any_text_is_read_with_nothing_but_halves_changed(text: str) -> None:
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert json.loads(mended(json.dumps(text).encode())) == whole
    # Nor is anything changed in what is written without escapes.
    if whole == text:
        plain = json.dumps(text, ensure_ascii=False).encode()
        assert mended(plain) == plain
