"""The line as the relay reads and writes it: nothing that a client sends does more than it says."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from opencode_relay import protocol
from opencode_relay.channel import Channel, EndlessLine
from opencode_relay.protocol import Bye, Hello, LineRefusal, Ping, Probe, Query, decode

CONTRACT = Path(__file__).parents[1] / "contract"
SCHEMAS = {
    name: json.loads((CONTRACT / name).read_text()) for name in ("line.schema.json", "registration.schema.json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
LINE = Draft202012Validator(SCHEMAS["line.schema.json"], registry=REGISTRY)
GOLDEN = (CONTRACT / "golden" / "line.jsonl").read_bytes().splitlines()
FROM_A_LAUNCHER = {"hello": Hello, "ping": Ping, "probe": Probe, "query": Query, "bye": Bye}


@pytest.mark.parametrize("line", GOLDEN, ids=lambda line: line[:24].decode())
def test_of_the_contracts_messages_the_relay_takes_a_launchers_and_no_others(line: bytes) -> None:
    message = decode(line)
    expected = FROM_A_LAUNCHER.get(json.loads(line)["type"])
    assert type(message) is (expected or type(None))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TYPED = st.fixed_dictionaries(
    {"type": st.sampled_from([*FROM_A_LAUNCHER, "ready", "error", "x"])},
    optional={"v": JSON | st.just(1), "id": JSON | st.just("0" * 32), "file": JSON, "n": JSON, "port": JSON},
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | TYPED.map(lambda m: json.dumps(m).encode()))
def test_whatever_a_line_holds_it_is_a_message_a_refusal_or_noise(line: bytes) -> None:
    try:
        message = decode(line)
    except LineRefusal as refusal:
        LINE.validate(json.loads(protocol.error(refusal)))
        return
    if isinstance(message, Hello):
        assert len(message.id) == 32
        assert isinstance(message.file, dict)
    if isinstance(message, Ping):
        LINE.validate(json.loads(protocol.encode(type="pong", n=message.n, health="ok")))


@given(st.text(), st.none() | st.text())
def test_a_refusal_is_one_line_of_the_contract(message: str, holder: str | None) -> None:
    line = protocol.error(LineRefusal("name-taken", message, holder=holder))
    assert line.count(b"\n") == 1
    LINE.validate(json.loads(line))


@given(st.lists(st.binary(max_size=40) | st.just(b"x" * 20_000)), st.lists(st.integers(1, 30_000), min_size=1))
def test_a_stream_is_cut_into_the_same_lines_wherever_it_breaks(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    expected = [b"" if len(part) > protocol.LINE_MAX else part for part in stream.split(b"\n")[:-1]]
    assert asyncio.run(read_all(stream, cuts)) == expected


async def read_all(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Send the stream in pieces of about these sizes, in turn, and return what a channel makes of it."""
    incoming, into = os.pipe()
    channel = Channel(incoming, os.open(os.devnull, os.O_WRONLY))
    lines: list[bytes] = []

    async def read() -> None:
        while (line := await channel.read_line()) is not None:
            lines.append(line)

    reading = asyncio.create_task(read())
    sizes = itertools.cycle(cuts)
    os.set_blocking(into, False)
    while stream:
        with suppress(BlockingIOError):  # the channel has not come to read yet
            stream = stream[os.write(into, stream[: max(next(sizes), len(stream) // 50)]) :]
        await asyncio.sleep(0)
    os.close(into)
    await reading
    channel.close()
    return lines


async def test_a_line_without_end_is_not_kept() -> None:
    channel = Channel(os.open("/dev/zero", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(EndlessLine):
        await channel.read_line()
    channel.close()


async def test_all_of_a_message_is_written_to_a_side_that_takes_it_piece_by_piece() -> None:
    outof, outgoing = os.pipe()
    channel = Channel(os.open(os.devnull, os.O_RDONLY), outgoing)
    message = os.urandom(300_000)
    writing = asyncio.create_task(channel.write(message))
    read = b""
    while len(read) < len(message):
        read += await asyncio.to_thread(os.read, outof, 65_536)
    await writing
    assert read == message
    os.close(outof)
    with pytest.raises(BrokenPipeError):
        await channel.write(b"x")
    channel.close()
