"""A plain OpenCode 1 at work in the directory of an instance: nobody reaches it, and nobody may write beside it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

# OpenCode 2 is one process for all directories of a user.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.generations(1)]


@contextmanager
def plain_opencode(beside: Driven, message: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a message in a process of its own, as a person does who has started no launcher."""
    process = subprocess.Popen(
        [str(beside.home.binary), "run", message],
        cwd=beside.directory,
        env=beside.home.environment({"PWD": str(beside.directory)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", message=message, **more)


async def is_left_alone_by_control(client: RelayClient, session: str) -> None:
    """See that nothing is done to it but to name it, which disturbs nobody."""
    for action, value in (("undo", ""), ("compact", ""), ("fork", ""), ("stop", ""), ("agent", "build")):
        left = await client.call("control", instance="laptop", action=action, value=value, session=session)
        assert f"session {session} is being run by another OpenCode" in left.text, action
        assert "nothing was done" in left.text
    named = await client.call("control", instance="laptop", action="rename", value="at the desk", session=session)
    assert named.structured["rows"][0]["result"] == "done", named.text


async def test_a_session_in_which_a_plain_opencode_works_is_left_to_it_until_its_turn_has_ended(
    laptop: Driven, model: ScriptedModel
) -> None:
    with plain_opencode(laptop, "GATE:plain-elsewhere") as plain:
        await eventually_async(lambda: model.reached("plain-elsewhere"), within=90)
        session = model.turns("plain-elsewhere")[0].session
        async with relay_client(laptop.registry) as client:
            refused = await send(client, "never into the middle", session=session)
            assert refused.is_error
            assert f"session {session} is being run by another OpenCode on that machine" in refused.text
            beside = await send(client, "beside it")
            assert beside.structured["session"] != session
            assert beside.structured["note"].startswith(f"session {session} is being run by another OpenCode")
            await is_left_alone_by_control(client, session)
            assert plain.poll() is None
            model.release("plain-elsewhere")
            await eventually_async(lambda: plain.poll() is not None, within=90)
            after = await send(client, "after its end", session=session)
            assert (after.structured["result"], after.structured["session"]) == ("done", session)
            assert "note" not in after.structured
    assert laptop.prompts(session) == ["GATE:plain-elsewhere", "after its end"]
