"""The audit log: what a line says, what it never says, its bounds, and what happens when it cannot be written."""

from __future__ import annotations

import io
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from fastmcp.server.middleware import MiddlewareContext
from fastmcp.tools.base import ToolResult
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mcp_types import CallToolRequestParams

from opencode_gateway.audit import LINE_BYTES, MESSAGES_LINE_BYTES, AuditEvent, AuditLog
from opencode_gateway.calls.audited import AuditCalls, TokenHolder
from opencode_gateway.configuration import Audit
from opencode_gateway.errors import ConfigError
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_575_845.678
NASTY = 'x"}\n{"event":"call"}\r\x00\x1b[2J\u2028 😀é\ud800'


def written(event: AuditEvent, **audit: Any) -> str:
    stream = io.StringIO()
    AuditLog(Audit(**audit), lambda: NOW, stream).write(event)
    return stream.getvalue()


async def test_a_call_is_one_line_that_says_who_did_what_to_which_instance(gateway: Gateway) -> None:
    async with gateway.client() as client:
        await client.call("send", instance="laptop", message="the secret plan")

    line = gateway.audit()[-1]
    assert line.pop("time").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "call",
        "outcome": "ok",
        "login": "ann",
        "kind": "token",
        "client_id": "client-of-ann",
        "client_name": "ann's chat",
        "address": "127.0.0.1",
        "tool": "send",
        "server": "fixture",
        "asked": "laptop",
        "instance": "laptop-0",
        "session": "ses_1",
    }
    assert "the secret plan" not in gateway.stdout.read_text()


@pytest.mark.parametrize("answered", [[1, 2], "text", 5])
async def test_a_call_whose_answer_is_structured_otherwise_has_its_line_and_its_answer(
    answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    calls = AuditCalls(AuditLog(Audit(), lambda: NOW, stream), frozenset(), lambda _tool: "other")
    nobody = TokenHolder(login=None, kind=None, client_id=None, client_name=None, address=None)
    monkeypatch.setattr(TokenHolder, "of_request", lambda: nobody)
    result = ToolResult(content="done")
    result.structured_content = answered
    message = CallToolRequestParams(name="send", arguments={})

    async def call_next(context: MiddlewareContext[CallToolRequestParams]) -> ToolResult:
        del context
        return result

    assert await calls.on_call_tool(MiddlewareContext(message=message), call_next) is result
    assert json.loads(stream.getvalue())["outcome"] == "ok"


async def test_refused_failed_and_wrong_calls_have_their_lines_too(gateway: Gateway) -> None:
    async with gateway.client("observe-token") as client:
        await client.call("send", instance="laptop")
    async with gateway.client() as client:
        await client.call("send")
        await client.call("reply", instance="laptop", die=True)

    assert [(line["tool"], line["outcome"]) for line in gateway.audit()[-3:]] == [
        ("send", "refused"),
        ("send", "tool-error"),
        ("reply", "failed"),
    ]


async def test_standard_output_carries_nothing_else(gateway: Gateway) -> None:
    async with gateway.client() as client:
        await client.tools()
    gateway.get("/healthz")

    assert all(line["event"] == "call" for line in gateway.audit())


async def test_messages_are_written_when_that_is_switched_on(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    with Gateway(tmp_path, {"fixture": fixture_entry()}, audit={"file": str(file), "messages": True}) as gateway:
        async with gateway.client() as client:
            await client.call("send", instance="laptop", message="the plan")
            await client.call("send", instance="laptop", message="x" * 200_000)
        assert gateway.stdout.read_text() == ""

    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert json.loads(first["arguments"]) == {"instance": "laptop", "message": "the plan"}
    assert '"text": "the plan"' in first["result"]
    assert second["arguments"].endswith("…")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_times_are_utc_with_milliseconds() -> None:
    assert json.loads(written(AuditEvent(event="login", outcome="ok")))["time"] == "2026-11-25T03:04:05.678Z"


def test_what_a_stranger_chooses_cannot_make_a_line_of_its_own() -> None:
    line = written(
        AuditEvent(event="login", outcome="refused", login=NASTY, client_name=NASTY, details={"reason": NASTY})
    )

    assert line.isascii()
    assert line.endswith("}\n")
    assert all(" " <= character <= "~" for character in line[:-1])
    assert json.loads(line)["login"] == NASTY


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(st.text(max_size=3000).map(lambda text: text * 5), min_size=5, max_size=5),
    body=st.text(max_size=2000).map(lambda text: text * 40),
    messages=st.booleans(),
)
@example(values=["😀" * 10_000] * 5, body="😀" * 100_000, messages=False)
@example(values=["😀" * 10_000] * 5, body="😀" * 100_000, messages=True)
def test_every_line_is_bounded_and_can_be_read(values: list[str], body: str, messages: bool) -> None:
    login, client_id, client_name, tool, session = values
    details = {"tool": tool, "session": session, "arguments": body, "result": body, "duration_ms": 1}
    event = AuditEvent(
        event="call", outcome="ok", login=login, client_id=client_id, client_name=client_name, details=details
    )

    line = written(event, messages=messages)

    assert len(line) <= (MESSAGES_LINE_BYTES if messages else LINE_BYTES)
    assert json.loads(line)["duration_ms"] == 1


def test_a_file_is_rotated_and_old_ones_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(Audit(file=file, max_bytes=100_000, keep=2))
    for number in range(3000):
        log.write(AuditEvent(event="login", outcome="ok", details={"number": number}))
    log.close()

    files = sorted(tmp_path.iterdir())
    assert [found.name for found in files] == ["audit.log", "audit.log.1", "audit.log.2"]
    assert {stat.S_IMODE(found.stat().st_mode) for found in files} == {0o600}
    assert all(found.stat().st_size <= 100_000 for found in files)
    assert json.loads(file.read_text().splitlines()[-1])["number"] == 2999


def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit\.file: .*missing/audit\.log cannot be written: No such file"):
        AuditLog(Audit(file=tmp_path / "missing" / "audit.log"))


class FullDisk(io.StringIO):
    """A stream with no room, until it has."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_log_that_cannot_be_written_is_not_usable_until_it_can_be_again() -> None:
    stream = FullDisk()
    log = AuditLog(Audit(), lambda: NOW, stream)
    assert log.usable()

    log.write(AuditEvent(event="call", outcome="ok"))
    assert not log.usable()

    stream.full = False
    assert log.usable()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["audit-resumed"]


async def test_with_a_full_disk_nothing_that_changes_anything_is_done(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}, audit={"file": "/dev/full"}) as gateway:
        async with gateway.client() as client:
            assert not (await client.call("read", instance="x")).is_error
            answer = await client.call("send", instance="x")
            assert not (await client.call("read", instance="x")).is_error
        log = gateway.log

    assert answer.is_error
    assert answer.text == ("the gateway cannot write its audit log, so nothing was done; its owner must see to it")
    assert "an audit line cannot be written: [Errno 28] No space left on device" in log


def test_lists_stay_lists_and_are_cut_as_a_whole() -> None:
    stream = io.StringIO()
    log = AuditLog(Audit(), lambda: NOW, stream)
    short, long = ["observe", "drive"], ["x" * 100] * 10_000

    log.write(AuditEvent(event="consent", outcome="allowed", details={"capabilities": short, "redirect_uris": long}))

    line = json.loads(stream.getvalue())
    assert line["capabilities"] == short
    assert line["redirect_uris"][0] == "x" * 100
    assert line["redirect_uris"][-1].endswith("…")
    assert len(stream.getvalue()) < 5000


def test_what_a_proof_is_made_of_is_never_cut() -> None:
    proof = "p" * 4_000
    details = {"proof": proof, "why": "…" * 5_000}
    assert json.loads(written(AuditEvent(event="decision", outcome="ok", details=details)))["proof"] == proof
