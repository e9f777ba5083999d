"""A server that is killed in the middle of a call, before real OpenCode: the same call again sends nothing again."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("client")]


async def send(client: RelayClient, session: str) -> Answer:
    return await client.call(
        "send", on_progress=None, instance="far", message="GATE:killed-in-a-call", session=session
    )


async def test_the_same_call_to_the_next_server_takes_up_the_turn(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    session = laptop.create()
    laptop.register_at(registry_dir, "far", laptop.port)
    with suppress(Exception):  # whatever the SDK makes of a server that is killed
        async with relay_client(registry_dir) as client:
            call = asyncio.create_task(send(client, session))
            await eventually_async(lambda: model.reached("killed-in-a-call"), "its turn runs", within=90)
            os.kill(client.server_pid, signal.SIGKILL)
            await asyncio.wait([call])
    assert model.reached("killed-in-a-call")
    async with relay_client(registry_dir) as client:
        again = asyncio.create_task(send(client, session))
        await asyncio.sleep(0)
        model.release("killed-in-a-call")
        answer = await again
        assert answer.structured["result"] == "done"
        assert "this very message was sent before" in answer.text
    assert laptop.prompts(session) == ["GATE:killed-in-a-call"]
