"""A session whose agent is no longer in OpenCode's configuration: messages to it fail, and what helps is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.attached import Attached1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.scripted_model import ScriptedModel

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_an_agent_that_is_gone_is_named_with_what_helps(
    generation: int, home: OpenCodeHome, model: ScriptedModel, tmp_path: Path
) -> None:
    own = OpenCodeHome(tmp_path / "home", model.base_url, binary=home.binary)
    file = own.root / ".config" / "opencode" / "opencode.json"
    without = file.read_text()
    mine = {"description": "mine", "mode": "primary", "prompt": "You are mine."}
    file.write_text(json.dumps({**json.loads(without), "agent": {"mine": mine}}))
    kind = Attached1 if generation == 1 else Driven2
    with kind(own, tmp_path / "project") as driven:
        session = driven.create_with_agent("mine")
        async with relay_client(driven.registry) as client:
            good = await client.call("send", instance=driven.name, message="one", session=session)
            assert good.structured["result"] == "done"
        driven.kill()
        file.write_text(without)
        driven.revive()
        async with relay_client(driven.registry) as client:
            failed = await client.call("send", instance=driven.name, message="two", session=session)
            assert failed.structured["result"] == "failed"
            assert ">mine</" in failed.structured["note"]
            assert "`send` with session='new'" in failed.text
            helped = await client.call("send", instance=driven.name, message="three", session="new")
            assert helped.structured["result"] == "done"
            assert "note" not in helped.structured
