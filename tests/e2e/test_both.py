"""Both generations of OpenCode under one HOME: two instances, and nobody needs to know which is which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.driven import Driven1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import RelayClient


@pytest.mark.timeout(400)
async def test_both_generations_of_one_home_are_driven_at_once(
    opencode_bin: Path, opencode2_bin: Path, tmp_path: Path
) -> None:
    with ScriptedModel() as model:
        home = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode_bin)
        with Driven1(home, tmp_path / "first", name="first") as first:
            home.install(opencode2_bin)
            with Driven2(home, tmp_path / "second", name="second") as second:
                async with relay_client(home.root / "registry") as client:
                    await eventually_async(lambda: are_there(client, {"first": "1.", "second": "2."}), within=90)
                    for driven in (first, second):
                        name = driven.name
                        asked = await client.call("send", instance=name, message=f"[BASH:echo by-{name}]")
                        (ask,) = asked.structured["asks"]
                        assert driven.asks() == [ask["id"]]
                        done = await client.call("reply", instance=name, ask=ask["id"], answer="once")
                        assert f"by-{name}" in done.structured["text"]
                        assert driven.prompts(done.structured["session"]) == [f"[BASH:echo by-{name}]"]
                    assert first.asks() == second.asks() == []


async def are_there(client: RelayClient, wanted: dict[str, str]) -> bool:
    """Tell whether the instances are these, each of a version that begins so."""
    rows = (await client.call("instances")).structured["instances"]
    return {row["name"]: row.get("version", "")[:2] for row in rows} == wanted
