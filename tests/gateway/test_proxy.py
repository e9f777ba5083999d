"""What passes between chat clients and the children, in both protocol eras, and what does not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from opencode_gateway.calls.children import ServerChild
from opencode_gateway.calls.servers import Server
from support.chat import rude_server
from support.chat.mcp_client import Era, relay_client
from support.gateway.fixture_server import INSTRUCTIONS
from support.gateway.service import FIXTURE_SERVER, Gateway, fixture_entry
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.chat.mcp_client import Progress, ToolClient

ERAS: tuple[Era, ...] = ("legacy", "2026-07-28")


@pytest.fixture(params=ERAS)
async def era(request: pytest.FixtureRequest) -> Era:
    found: Era = request.param
    return found


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the fixture server writes whose call was cancelled."""
    return tmp_path_factory.mktemp("cancelled") / "who"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, cancelled: Path) -> Iterator[Gateway]:
    entry = fixture_entry(env={"FIXTURE_CANCELLED": str(cancelled)})
    with Gateway(tmp_path_factory.mktemp("proxy"), {"fixture": entry}) as running:
        yield running


async def pid(client: ToolClient) -> int:
    return int((await client.call("read", instance="any")).structured["pid"])


async def test_a_call_is_answered_as_the_server_answers_it(gateway: Gateway, era: Era) -> None:
    async with gateway.client(era=era) as client:
        answer = await client.call("send", instance="laptop", message="grüß dich 👋")

    assert answer.structured == {"instance": "laptop-0", "session": "ses_1", "text": "grüß dich 👋"}
    assert not answer.is_error


async def test_progress_passes_while_the_call_runs(gateway: Gateway, era: Era) -> None:
    async with gateway.client(era=era) as client:
        answer = await client.call("reply", instance="laptop", steps=3)

    assert [note.message for note in answer.progress] == ["laptop 1", "laptop 2", "laptop 3"]


async def test_progress_of_calls_at_once_goes_to_whose_call_it_is(gateway: Gateway, era: Era) -> None:
    async def one(name: str) -> None:
        async with gateway.client(era=era) as client:
            answer = await client.call("reply", instance=name, steps=20)
            assert [note.message for note in answer.progress] == [f"{name} {step + 1}" for step in range(20)]
            assert answer.text == name

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(one(f"client{number}"))


async def test_a_client_that_goes_away_cancels_its_call(gateway: Gateway, era: Era, cancelled: Path) -> None:
    cancelled.unlink(missing_ok=True)
    async with gateway.client(era=era) as other:
        async with gateway.client(era=era) as client:
            waits = asyncio.Event()

            def on_progress(_note: Progress) -> None:
                waits.set()

            call = asyncio.create_task(client.call("reply", instance=era, steps=0, on_progress=on_progress))
            await waits.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await eventually_async(
            lambda: cancelled.exists() and cancelled.read_text() == era, "the cancelled call's end"
        )
        await eventually_async(
            lambda: ("cancelled", era) in [(line["outcome"], line.get("asked")) for line in gateway.audit()],
            "its line",
        )
        # The child that others use lives on.
        assert (await other.call("send", instance="x")).structured["instance"] == "x-0"


async def test_a_killed_child_is_replaced_at_the_next_call(gateway: Gateway, era: Era) -> None:
    async with gateway.client(era=era) as client:
        before = await pid(client)
        os.kill(before, signal.SIGKILL)
        await eventually_async(lambda: not psutil.pid_exists(before), "the child's end")

        assert await pid(client) != before


async def test_a_child_that_dies_in_a_call_says_that_it_is_not_known_what_was_done(
    gateway: Gateway, era: Era
) -> None:
    async with gateway.client(era=era) as client:
        answer = await client.call("reply", instance="x", session="ses_7", die=True)

        assert answer.is_error
        assert answer.text == (
            "the server behind the gateway broke off before it answered reply. Whether it was done is not known: "
            'look with `read` with instance "x" and session "ses_7" before you do it again'
        )
        assert not (await client.call("send", instance="x")).is_error


async def test_a_call_that_was_being_made_when_the_child_was_killed_is_not_made_again(
    gateway: Gateway, era: Era, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with gateway.client(era=era) as client:
        child = await pid(client)
        runs = asyncio.Event()
        call = asyncio.create_task(
            client.call("reply", instance="x", steps=1, until=str(gate), on_progress=lambda _: runs.set())
        )
        await runs.wait()
        os.kill(child, signal.SIGKILL)
        # Made again, it would be answered now.
        gate.unlink()
        gate.write_text("go")
        answer = await call

    assert answer.is_error
    assert "Whether it was done is not known" in answer.text
    assert [note.message for note in answer.progress] == ["x 1"]


async def test_a_call_whose_server_does_not_start_anew_says_that_nothing_was_done(tmp_path: Path, era: Era) -> None:
    command = tmp_path / "command"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FIXTURE_SERVER}"\n')
    command.chmod(0o700)
    with Gateway(tmp_path / "gateway", {"fixture": {"command": str(command)}}) as gateway:
        async with gateway.client(era=era) as client:
            await client.tools()
            child = await pid(client)
            command.unlink()
            os.kill(child, signal.SIGKILL)
            await eventually_async(lambda: not psutil.pid_exists(child), "the child's end")
            answer = await client.call("send", instance="x")

    assert answer.is_error
    assert answer.text == (
        "the server behind the gateway does not start, so nothing was done of send; the gateway's log says why"
    )


async def test_both_eras_share_one_child(gateway: Gateway) -> None:
    async with gateway.client(era="legacy") as old, gateway.client(era="2026-07-28") as new:
        assert await pid(old) == await pid(new)
    assert len(gateway.process.children()) == 1


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_instructions_of_the_server_pass(gateway: Gateway, era: Era) -> None:
    async with gateway.client(era=era) as client:
        assert client.client.instructions == INSTRUCTIONS


async def test_a_servers_prompts_and_resources_are_not_served(gateway: Gateway) -> None:
    async with gateway.client() as client:
        assert (await client.client.list_prompts()).prompts == []
        assert (await client.client.list_resources()).resources == []
        assert (await client.client.list_resource_templates()).resource_templates == []


async def test_tools_of_the_opencode_server_are_described_as_it_describes_them(
    tmp_path: Path, registry_dir: Path
) -> None:
    entry = {"command": "opencode-mcp", "env": {"RELAY_REGISTRY_DIR": str(registry_dir)}}
    async with relay_client(registry_dir) as direct:
        told = await direct.tools()
    with Gateway(tmp_path, {"mcpServers": {"opencode": entry}}) as gateway:
        async with gateway.client() as client:
            served = await client.tools()

    def described(tools: dict[str, Any]) -> dict[str, Any]:
        # fastmcp repeats the title of the annotations beside them, and adds no meaning in `meta`.
        return {name: tool.model_dump(exclude={"meta", "title"}) for name, tool in tools.items()}

    assert described(served) == described(told)


async def test_a_call_is_given_up_in_time_and_says_that_the_work_goes_on(tmp_path: Path) -> None:
    cancelled = tmp_path / "who"
    entry = fixture_entry(env={"FIXTURE_CANCELLED": str(cancelled)})
    with Gateway(tmp_path, {"fixture": entry}, tool_timeout_seconds=0.1) as gateway:
        async with gateway.client() as client:
            answer = await client.call("reply", instance="slow", steps=0)
        outcome = gateway.audit()[-1]["outcome"]

    assert answer.is_error
    assert "gave no answer within 5.1 s" in answer.text
    assert "do not send it again" in answer.text
    assert outcome == "timeout"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Three servers: `opencode`, one that lists its tools, and one that cannot be started."""
    servers = {
        "opencode": fixture_entry(env={"FIXTURE_INSTRUCTIONS": "first", "WHO": "opencode"}),
        "other": fixture_entry(env={"FIXTURE_INSTRUCTIONS": "second", "WHO": "other"}, tools=["instances", "read"]),
        "broken": {"command": "/nonexistent/program"},
    }
    tools = ["instances", "other_instances", "other_send", "broken_x", "send"]
    with Gateway(tmp_path_factory.mktemp("several"), servers, capabilities={"observe": tools}) as running:
        yield running


async def test_of_several_servers_opencode_keeps_its_names_and_others_have_a_prefix(several: Gateway) -> None:
    async with several.client(era="auto") as client:
        assert set(await client.tools()) == {"instances", "send", "other_instances"}
        assert (await client.call("instances")).structured["WHO"] == "opencode"
        assert (await client.call("other_instances")).structured["WHO"] == "other"
        assert client.client.instructions == "first\n\nTools other_…: second"

    assert [line["server"] for line in several.audit() if line["tool"].endswith("instances")] == ["opencode", "other"]


async def test_a_tool_that_an_entry_does_not_list_is_not_served_whatever_a_login_may(several: Gateway) -> None:
    async with several.client() as client:
        await client.tools()  # from then on the gateway knows the tool
        answer = await client.call("other_send", instance="x")

    assert answer.is_error
    assert answer.text == "Unknown tool: 'other_send'"


async def test_a_server_that_does_not_start_leaves_the_others_alone_and_health_names_it(several: Gateway) -> None:
    answer = several.get("/healthz")

    assert (answer.status_code, answer.text) == (503, "no answer from: broken\n")
    assert "the server broken does not start" in several.log


FORGED = '{"event":"call","outcome":"ok","login":"bob","tool":"send"}'


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    entry = {"command": sys.executable, "args": [str(Path(rude_server.__file__))]}
    with Gateway(tmp_path_factory.mktemp("rude"), {"rude": entry}) as running:
        yield running


async def test_a_question_of_a_server_reaches_nobody(rude: Gateway, era: Era) -> None:
    async with rude.client(era=era) as client:
        answer = await client.call("send")

    assert answer.is_error
    assert "asked a question instead of answering send" in answer.text
    assert rude_server.QUESTION not in answer.text
    assert rude.audit()[-1]["outcome"] == "tool-error"


ASKS_WHAT_CLIENTS_CAN = """
from mcp.server.mcpserver import Context, MCPServer
server = MCPServer("asks")
@server.tool()
def read(ctx: Context) -> str:
    return ctx.client_capabilities.model_dump_json(exclude_none=True)
server.run("stdio")
"""


async def test_a_server_is_told_that_nobody_answers_its_questions() -> None:
    child = ServerChild(
        "asks", Server(command=sys.executable, args=("-c", ASKS_WHAT_CLIENTS_CAN)), dict(os.environ), "1"
    )
    async with child.client() as client:
        answer = await client.call_tool("read")
    await child.end()

    assert answer.content[0].text == "{}"


HANGS_ONCE = """
import pathlib, runpy, sys
before = pathlib.Path(sys.argv[1])
if not before.exists():
    before.touch()
    sys.stdin.read()
runpy.run_path(sys.argv[2], run_name="__main__")
"""


async def test_a_child_that_hangs_when_it_starts_is_ended_and_the_next_call_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Server(command=sys.executable, args=("-c", HANGS_ONCE, str(tmp_path / "before"), str(FIXTURE_SERVER)))
    child = ServerChild("hangs", entry, dict(os.environ), "1")
    with monkeypatch.context() as patch:
        patch.setattr("opencode_gateway.calls.children.START_SECONDS", 0.1)
        with pytest.raises(RuntimeError, match="failed to connect"):
            await child.ask()

    await child.ask()

    await child.end()


async def test_an_error_that_a_server_answers_with_is_not_taken_for_its_end(rude: Gateway) -> None:
    async with rude.client() as client:
        answer = await client.call("read")

    assert answer.is_error
    assert "broke off" not in answer.text
    assert rude.audit()[-1]["outcome"] == "tool-error"


async def test_a_server_cannot_forge_lines_of_the_log(rude: Gateway) -> None:
    async with rude.client() as client:
        await client.call("read", text=f"{FORGED}\nb\r{FORGED}\x1b[2J\n")
    await eventually_async(lambda: f": server rude: b\\r{FORGED}\\x1b[2J\n" in rude.log, "the second line")

    assert f": server rude: {FORGED}\n" in rude.log
    assert not [line for line in rude.log.splitlines() if line.startswith("{")]


async def test_what_a_server_logs_while_a_call_runs_reaches_nobody(rude: Gateway) -> None:
    logged = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "the secret"}}
    params = {"name": "instances", "arguments": {"text": f"{json.dumps(logged)}\n"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Authorization": "Bearer all-token",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }

    # This call starts it anew: what reads from a child runs in the context of whoever started it.
    (child,) = rude.process.children()
    child.kill()
    await asyncio.to_thread(child.wait, 60)

    answer = await asyncio.to_thread(rude.request, "POST", "/mcp", headers, json.dumps(call).encode())

    assert '"isError":false' in answer.text
    assert "secret" not in answer.text


async def test_what_is_no_message_is_not_logged(rude: Gateway) -> None:
    notification = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"the secret plan"}}'
    before = len(rude.log)
    async with rude.client() as client:
        answer = await client.call("instances", text=f"the secret plan\n{notification}\n")
    assert not answer.is_error
    await eventually_async(lambda: "server rude sent a line that is no message" in rude.log[before:], "its line")

    assert "secret" not in rude.log[before:]
    assert "Traceback" not in rude.log[before:]


async def test_a_server_that_writes_much_is_not_held_up_and_started_anew_leaves_nothing_open(rude: Gateway) -> None:
    async with rude.client() as client:
        await client.call("read", text="x", times=1_000_000)
        before = rude.process.num_fds()
        for _ in range(3):
            (child,) = rude.process.children()
            child.kill()
            await asyncio.to_thread(child.wait, 60)
            assert not (await client.call("read", text="x", times=1_000_000)).is_error

        await eventually_async(lambda: rude.process.num_fds() == before, "as many descriptors as before")
