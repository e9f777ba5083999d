"""What an instance sends, taken apart: event streams in whatever pieces, and JSON as JavaScript makes it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.agents import streams
from opencode_fleet.agents.streams import Pace, frames, parse_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def framed(pieces: list[bytes]) -> list[bytes | None]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [frame async for frame in frames(arriving())]


@given(
    st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b""))),
    st.lists(st.integers(0, 2000)),
)
async def test_an_event_stream_is_the_same_however_it_is_cut_into_pieces(lines: list[bytes], cuts: list[int]) -> None:
    events = [b"data: " + line + b"\n\n" for line in lines]
    stream = b"".join(events)
    ends = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(ends)]
    assert await framed(pieces) == events


@pytest.mark.parametrize("piece", [7, 1000, 100_000])
async def test_an_event_beyond_the_limit_is_told_as_a_gap_and_the_next_one_is_whole(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_EVENT_BYTES", 2000)
    stream = b"data: 1\n\n" + b"data: " + b"x" * 5000 + b"\n\n" + b"data: 2\n\n"
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    assert await framed(pieces) == [b"data: 1\n\n", None, b"data: 2\n\n"]


async def test_events_beyond_so_many_a_second_wait_for_the_next_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_EVENTS_PER_SECOND", 10)
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("opencode_fleet.agents.streams.asyncio.sleep", note)
    pace = Pace()
    for _ in range(9):
        await pace.step(1)
    assert waited == []
    await pace.step(1)
    await pace.step(streams.COST_OF_A_GAP)
    assert len(waited) == 2
    assert all(0 < seconds <= 1 for seconds in waited)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=8))
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.text(st.characters(codec=None)))
def test_a_string_with_half_an_emoji_is_read_all_the_same(text: str) -> None:
    read = parse_json(json.dumps({"title": text, "ok": True}))
    assert isinstance(read, dict)
    assert read["ok"] is True
    read["title"].encode()


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"\xff", b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the parser's
        parse_json(content)
