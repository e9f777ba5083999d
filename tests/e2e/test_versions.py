"""OpenCodes of other versions than the pinned ones, which have all other tests.

Here are the newest that is refused and the oldest that is driven; `make versions` names more.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.driven import NAME
from support.opencodes.driven2 import Driven2
from support.opencodes.headless import Headless
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel
from support.opencodes.versions import opencode_of
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient

VERSIONS = os.environ.get("OPENCODE_VERSIONS", "1.0.185 1.1.65").split()
REFUSED = [version for version in VERSIONS if version.startswith(("0.", "1.0."))]


@contextmanager
def launched(home: OpenCodeHome, directory: Path, version: str) -> Iterator[None]:
    """Run the real launcher, which starts OpenCode."""
    if not version.startswith("1."):
        with Driven2(home, directory):
            yield
        return
    launcher = Headless(home, directory, home.root / "registry", NAME)
    launcher.start()
    try:
        yield
    finally:
        launcher.end()


async def is_idle(client: RelayClient, version: str) -> bool:
    rows = (await client.call("instances")).structured["instances"]
    return [(row["state"], row.get("version")) for row in rows] == [("idle", version)]


@pytest.mark.timeout(400)  # it is downloaded, too
@pytest.mark.parametrize("version", [version for version in VERSIONS if version not in REFUSED])
async def test_a_version_takes_a_turn_and_waits_for_a_person(version: str, tmp_path: Path) -> None:
    with ScriptedModel() as model:
        home = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode_of(version))
        with launched(home, tmp_path / "project", version):
            async with relay_client(home.root / "registry") as client:
                await eventually_async(lambda: is_idle(client, version), within=60)
                done = await client.call("send", instance=NAME, message="hello", session="new")
                assert (done.structured["result"], done.structured["text"]) == ("done", "echo: hello")
                asked = await client.call("send", instance=NAME, message="[BASH:echo from-$((40 + 2))]")
                assert asked.structured["session"] == done.structured["session"]
                assert asked.structured["result"] == "needs-permission"
                (ask,) = asked.structured["asks"]
                allowed = await client.call("reply", instance=NAME, ask=ask["id"], answer="once")
                assert allowed.structured["result"] == "done"
                assert "from-42" in allowed.structured["text"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", REFUSED)
def test_a_version_that_cannot_be_driven_is_refused_in_one_line(version: str, tmp_path: Path) -> None:
    home = OpenCodeHome(tmp_path / "home", "http://127.0.0.1:9/v1", binary=opencode_of(version))
    launcher = Headless(home, tmp_path / "project", home.root / "registry", NAME)
    launcher.launch()
    try:
        eventually(launcher.has_ended, "the launcher's end", within=60)
        (said,) = launcher.said().splitlines()
        assert f"OpenCode {version}, which cannot be driven from afar" in said
    finally:
        launcher.end()
