"""The guard in a process of its own, for its figures: prints what it took before the guard, in bytes, and the port.

python tests/bench/guard_process.py URL AUTHORIZATION GENERATION VERSION DIRECTORY KEY
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

import psutil

# What the launcher holds without a guard; what comes on top of it is the guard's.
import_module("opencode_connected.cli")
import_module("opencode_connected.launcher")
_BEFORE = psutil.Process().memory_info().rss


async def serve() -> None:
    """Serve until the input ends."""
    url, authorization, generation, version, directory, key = sys.argv[1:]
    policies = import_module("opencode_connected.guard.policy")
    target = import_module("opencode_connected.guard.upstream").Target(
        url, authorization or None, int(generation), version
    )

    class Still:
        """An agent that does not move."""

        async def target(self) -> object:
            return target

        async def moved(self, _seen: object) -> object:
            return target

    opened = policies.OpenedDirectory(directory, "bench", opened=True)
    policy = policies.Policy(policies.DEFAULT_RIGHTS, (opened,))
    guard = import_module("opencode_connected.guard.server").Guard(Still(), lambda: policy, log=print)
    print(_BEFORE, await guard.listen_on_port(("opencode", key)), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await guard.close()


if __name__ == "__main__":
    asyncio.run(serve())
