"""From an agent's ask to the outlet through the whole chain: scripted OpenCode, real server, gateway and webhook."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from support.fleet.registry import register, registration
from support.gateway.telling_gateway import telling_gateway
from support.opencodes.fake_asking_instance import ASKS, asking_instances
from support.pages.fake_receiver import receiver
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

    from support.opencodes.fake_asking_instance import AskingInstance
    from support.pages.fake_receiver import Receiver

KINDS = ["notice", "notice.withdrawn"]


async def asked_and_told(laptop: AskingInstance, hook: Receiver, message: str) -> None:
    """Have it ask, see it told, decide, and see it withdrawn."""
    hook.got.clear()
    session = next(iter(laptop.sessions))
    laptop.prompt(session, {"messageID": message, "parts": [{"type": "text", "text": f"{ASKS} {message}"}]})
    await eventually_async(lambda: len(hook.got) == 1, f"the push of {message}")
    (ask,) = laptop.open
    laptop.decide(ask, "once")
    await eventually_async(lambda: len(hook.got) == 2, f"the withdrawal of {message}")
    said = [json.loads(each.body) for each in hook.got]
    assert [each["type"] for each in said] == KINDS
    assert said[0]["title"] == "laptop asks for a shell command"
    assert said[0]["tag"] == said[1]["tag"]
    assert said[0]["tag"].endswith(f"/{said[0]['id']}")


async def test_of_two_gateways_with_a_server_each_one_tells_and_the_other_goes_on_when_it_dies(
    tmp_path: Path,
) -> None:
    async with asking_instances(["laptop"], sessions=1) as instances, receiver(tmp_path) as hook:
        laptop = instances["laptop"]
        register(tmp_path / "registry", registration("laptop", laptop.port, cwd=laptop.directory))
        with ExitStack() as stack:
            gateways = [
                telling_gateway(tmp_path / name, tmp_path / "registry", tmp_path / "state", hook, grouping_seconds=0)
                for name in ("one", "other")
            ]
            for gateway in gateways:
                stack.enter_context(gateway)
            await eventually_async(lambda: len(laptop.subscribers) == 2, "both servers")
            await asked_and_told(laptop, hook, "msg_1")
            leader = _who_sends(gateways[0].process, gateways[1].process, tmp_path)
            children = leader.children(recursive=True)
            leader.kill()
            for child in children:
                child.kill()
            await asked_and_told(laptop, hook, "msg_2")
    # Nothing more came than what was looked at: both were one message and its withdrawal.
    assert len(hook.got) == 2


def _who_sends(one: psutil.Process, other: psutil.Process, directory: Path) -> psutil.Process:
    """Return the process that holds the sender's lock."""
    inode = (directory / "state" / "notify" / "leader.lock").stat().st_ino
    with open("/proc/locks") as locks:  # noqa: PTH123 # no file
        holders = {int(line.split()[4]) for line in locks if line.split()[5].endswith(f":{inode}")}
    (leader,) = (each for each in (one, other) if each.pid in holders)
    return leader
