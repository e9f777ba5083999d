"""What the service's log holds of others' text: one record is one line, and children are bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import re

import psutil
import pytest

from opencode_gateway.logs import (
    LINE_CHARACTERS,
    LINES,
    PERIOD_SECONDS,
    RECORDS,
    ChildLog,
    LineFormatter,
    LogRateLimit,
    NoContent,
    whose,
)
from support.waiting import eventually_async

FORGED = '{"event":"call","login":"root"}'


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    trace = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("name", logging.INFO, "path", 1, message, args, trace)


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x85", "\u2028"])
def test_a_name_with_a_line_end_does_not_split_a_line(end: str) -> None:
    line = LineFormatter("%(message)s").format(record("%s broke off", f"read{end}{FORGED}"))

    assert len(line.splitlines()) == 1
    assert line.startswith("read\\")


def test_control_characters_are_written_out() -> None:
    assert LineFormatter("%(message)s").format(record("a\x1b[2J\x00\udc80é")) == "a\\x1b[2J\\x00\\udc80é"


def test_what_a_stranger_sent_is_not_quoted_at_length() -> None:
    line = LineFormatter("%(message)s").format(record("IdP callback error: %s", "x" * 12_000))

    assert line.endswith("x…")
    assert len(line) == LINE_CHARACTERS + 1


def test_of_a_library_that_complains_of_each_request_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    limit = LogRateLimit(lambda: now)
    complaint = record("Unsupported upgrade request.")
    own = logging.LogRecord("opencode_gateway.calls.children", logging.INFO, "path", 1, "read broke off", (), None)
    another = logging.LogRecord("another", logging.INFO, "path", 1, "another's", (), None)

    assert [limit.filter(complaint) for _ in range(RECORDS + 7)] == [True] * RECORDS + [False] * 7
    assert all(limit.filter(own) for _ in range(RECORDS + 1))
    assert limit.filter(another)

    now = PERIOD_SECONDS
    assert limit.filter(complaint)
    assert caplog.messages == ["7 more complaints of libraries are left out"]


def test_no_line_of_a_traceback_looks_like_an_audit_line() -> None:
    try:
        raise RuntimeError(f"answer:\n{FORGED}\r{FORGED}")
    except RuntimeError as error:
        found = record("failed", error=error)
    found.exc_text = f"as another handler formatted it\n{FORGED}"
    first, *more = LineFormatter("%(message)s").format(found).splitlines()

    assert first == "failed"
    assert all(line.startswith("  | ") for line in more)
    assert any(FORGED in line for line in more)


async def written(text: bytes, caplog: pytest.LogCaptureFixture) -> list[str]:
    log = ChildLog("rude", period=3600)
    os.write(log.opened().fileno(), text)
    log.close()
    return caplog.messages


async def test_a_childs_line_is_named_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    long, longer = "a" * LINE_CHARACTERS, "b" * 30_000
    lines = await written(f"{FORGED}\n{long}\n{longer}\n\x1b\xff\nlast".encode(), caplog)

    assert lines == [
        f"server rude: {FORGED}",
        f"server rude: {long}",
        f"server rude: {'b' * LINE_CHARACTERS}…",
        "server rude: \\x1bÿ",
        "server rude: last",
    ]


async def test_a_line_that_grows_when_written_out_is_bounded_too(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = await written(b"\x01" * LINE_CHARACTERS + b"\n", caplog)

    assert len(line) == len("server rude: …") + LINE_CHARACTERS


@pytest.mark.parametrize("line", [b"x\n", b"\n"])
async def test_of_a_child_that_floods_the_rest_is_counted(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    lines = await written(line * 5000, caplog)

    assert len(lines) == LINES + 1
    assert lines[-1] == f"server rude: {5000 - LINES} more lines are left out"


async def test_lines_left_out_are_told_without_waiting_for_more_and_then_lines_are_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = ChildLog("rude", period=0.05)
    os.write(log.opened().fileno(), b"x\n" * 1000)
    await eventually_async(lambda: "left out" in caplog.text, "the count")
    os.write(log.opened().fileno(), b"again\n")
    await eventually_async(lambda: caplog.messages[-1] == "server rude: again", "the next line")
    log.close()

    told = [int(found[1]) for found in re.finditer(r"rude: (\d+) more", caplog.text)]
    assert sum(told) + caplog.messages.count("server rude: x") == 1000


async def test_a_closed_log_leaves_no_descriptor_open() -> None:
    before = psutil.Process().num_fds()
    log = ChildLog("rude")
    log.opened()
    log.opened()
    assert psutil.Process().num_fds() == before + 2
    log.close()

    assert psutil.Process().num_fds() == before


async def test_a_line_that_is_no_message_is_told_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    found = record("Failed to parse", error=ValueError("the secret plan"))
    found.exc_text = "the secret plan"
    other = record("Reading failed", error=OSError("the secret plan"))

    async def reads() -> tuple[bool, bool]:
        whose.set(ChildLog("rude"))
        return NoContent().filter(found), NoContent().filter(other)

    assert await asyncio.create_task(reads()) == (False, True)
    assert caplog.messages == ["server rude sent a line that is no message"]
    assert (other.exc_info, other.exc_text) == (None, None)
