"""Instances that answer anything: nothing hangs, nothing leaves its delimiters, and the others do not notice."""

from __future__ import annotations

import re
import time
import unicodedata
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import psutil

from support.chat.mcp_client import relay_client
from support.fleet.registry import register
from support.opencodes.fake_fleet import FakeFleet
from support.opencodes.fake_hostile import BEHAVIOURS, TRAP, HostileInstance
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient

LIVE = {"escapes", "flood", "huge_event", "endless_event", "stalled_stream", "stream_ends"}
"""Behaviours that get as far as a snapshot, at least for a while."""


def hidden(text: str) -> list[str]:
    return [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


async def rows(client: RelayClient) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in (await client.call("instances")).structured["instances"]}


async def test_all_of_them_together_leave_the_healthy_ones_alone(registry_dir: Path) -> None:
    with FakeFleet(registry_dir) as fleet:
        healthy = list(fleet.add(3))
        hung = list(fleet.add(3, hung=True))
        async with AsyncExitStack() as stack:
            hostile = {
                behaviour: await stack.enter_async_context(HostileInstance(behaviour)) for behaviour in BEHAVIOURS
            }
            for instance in hostile.values():
                register(registry_dir, instance.registration())
            async with relay_client(registry_dir, env={"HEALTH_CHECK_TIMEOUT_MS": "500"}) as client:
                names = {*healthy, *hung, *(instance.name for instance in hostile.values())}
                await eventually_async(lambda: settled(client, names, healthy), within=30)
                for name in healthy * 3:
                    answer = await client.call("send", instance=name, message="are you well?")
                    assert answer.structured["text"] == "echo: are you well?"
                for behaviour in LIVE:
                    answer = await client.call("read", instance=hostile[behaviour].name)
                    assert hidden(answer.text) == []
                    outside_is_ours(answer)
                assert "Traceback" not in client.stderr
                assert psutil.Process(client.server_pid).memory_info().rss < 300 << 20
            assert TRAP not in hostile["redirect"].paths
        assert {path.stem for path in registry_dir.glob("*.json")} == names


async def settled(client: RelayClient, names: set[str], healthy: list[str]) -> bool:
    answer = await client.call("instances")
    assert hidden(answer.text) == []
    outside_is_ours(answer)
    found = {row["name"]: row["state"] for row in answer.structured["instances"]}
    assert found.keys() == names
    assert all(found[name] == "idle" for name in healthy)
    return "connecting" not in found.values()


def outside_is_ours(answer: Answer) -> None:
    """Check that what the `escapes` instance says of itself stands only inside delimiters that close."""
    mark_open = re.findall(r"<untrusted-([0-9a-f]{12})>", answer.text)
    for mark in mark_open:
        assert answer.text.count(f"</untrusted-{mark}>") == 1
    outside = re.sub(r"<untrusted-([0-9a-f]{12})>.*?</untrusted-\1>", "", answer.text, flags=re.DOTALL)
    assert "owned" not in outside
    assert "</data>" not in outside


async def test_instances_that_never_answer_sense_are_unresponsive_with_a_reason(registry_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        hostile = [
            await stack.enter_async_context(HostileInstance(behaviour)) for behaviour in BEHAVIOURS.keys() - LIVE
        ]
        for instance in hostile:
            register(registry_dir, instance.registration())
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: are_unresponsive_with_reason(client, hostile), within=60)
            for instance in hostile:
                refused = await client.call("send", instance=instance.name, message="anybody there?")
                assert refused.is_error
                assert f"“{instance.name}” is unresponsive" in refused.text
                assert "nothing was sent" in refused.text


async def are_unresponsive_with_reason(client: RelayClient, hostile: list[HostileInstance]) -> bool:
    found = await rows(client)
    for instance in hostile:
        assert found[instance.name]["state"] == "unresponsive"
        reason = REASONS.get(instance.name.replace("-", "_"), "did not answer in time")
        assert reason in str(found[instance.name]["waits_for"])
    return True


REASONS = {
    "closes_at_once": "broke",
    "deeply_nested": "no JSON",
    "endless_body": "more than 1 MiB",
    "endless_headers": "no HTTP",
    "garbage": "no JSON",
    "gzip_bomb": "no JSON",
    "html": "a web page",
    "redirect": "a redirect (302)",
    "stream_of_html": "a web page",
    "unauthorized": "wants a password",
    "wrong_types": "of another shape",
}


async def test_what_an_instance_says_of_itself_is_shown_without_its_escapes(registry_dir: Path) -> None:
    async with HostileInstance("escapes") as hostile:
        register(registry_dir, {**hostile.registration(), "hostname": "\x1b[31mhost", "cwd": "/\u202egnol"})
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: is_idle(client, "escapes"))
            for answer in (
                await client.call("instances"),
                await client.call("read", instance="escapes"),
                await client.call("send", instance="nothing-like-it", message="x"),
            ):
                assert hidden(answer.text) == []
                outside_is_ours(answer)
            (row,) = (await rows(client)).values()
            assert row["hostname"] == "\\x1b[31mhost"
            assert all(hidden(str(value)) == [] for value in row.values())
            read = await client.call("read", instance="escapes")
            assert "\\x1b]0;owned\\x07" in read.text


async def is_idle(client: RelayClient, name: str) -> bool:
    return (await rows(client))[name]["state"] == "idle"


async def test_a_stream_that_ends_at_once_every_time_is_opened_less_and_less_often(registry_dir: Path) -> None:
    async with HostileInstance("stream_ends") as hostile:
        register(registry_dir, hostile.registration())
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: opened(hostile) >= 2, within=30)
            began, before = time.monotonic(), opened(hostile)
            await eventually_async(lambda: opened(hostile) >= before + 2, within=30)
            # Without a growing pause these two would have come within a quarter of a second.
            assert time.monotonic() - began > 0.6
            assert (await rows(client)).keys() == {"stream-ends"}


def opened(hostile: HostileInstance) -> int:
    return sum(path.startswith("/event") for path in hostile.paths)


async def test_a_flood_of_events_does_not_slow_the_others_down(registry_dir: Path) -> None:
    with FakeFleet(registry_dir) as fleet:
        (name,) = fleet.add(1)
        async with HostileInstance("flood") as hostile, relay_client(registry_dir) as client:
            await eventually_async(lambda: is_idle(client, name))
            register(registry_dir, hostile.registration())
            await eventually_async(lambda: opened(hostile) > 0)
            for _ in range(5):
                answer = await client.call("send", instance=name, message="through the flood")
                assert answer.structured["text"] == "echo: through the flood"
