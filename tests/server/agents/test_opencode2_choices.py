"""What a person can choose on OpenCode 2, and how a session is told to go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_fleet.errors import NotFound
from opencode_fleet.model import Prompt
from opencode_fleet.prompt_ids import new_prompt_id
from support.opencodes.connected import listening, opencode2_behind
from support.opencodes.fake_opencode2 import GUARD, HOME, FakeOpenCode2
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.agents.opencode2 import OpenCode2

PROMPT = "POST /api/session/ses_1/prompt"


async def test_agents_and_models_of_a_directory_are_told_without_what_is_not_for_people() -> None:
    agents = [{"id": "build"}, {"id": "explore", "mode": "subagent"}, {"id": "title", "hidden": True}, {}, 5]
    models = [
        {"id": "b/c", "providerID": "a", "enabled": True},
        {"id": "off", "providerID": "a", "enabled": False},
        {"id": "nobody's"},
    ]
    asked = f"?location%5Bdirectory%5D={HOME}"
    fake = FakeOpenCode2({f"GET /api/agent{asked}": {"data": agents}, f"GET /api/model{asked}": {"data": models}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        assert await agent.agents(HOME) == ["build"]
        assert await agent.models(HOME) == ["a/b/c"]


async def test_a_session_is_switched_by_calls_of_its_own() -> None:
    switch = "POST /api/session/ses_1/"
    fake = FakeOpenCode2({f"{switch}agent": (204, ""), f"{switch}model": (204, "")})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.switch("ses_1", "plan", "")
        await agent.switch("ses_1", "", "a/b/c")
    assert fake.bodies(f"{switch}agent") == [{"agent": "plan"}]
    assert fake.bodies(f"{switch}model") == [{"model": {"providerID": "a", "id": "b/c"}}]


async def test_a_message_is_delivered_into_a_turn_or_after_it_and_changes_no_agent() -> None:
    fake = FakeOpenCode2({PROMPT: {"data": {"id": "msg_1", "payload": {"text": "hello"}}}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.prompt(Prompt("ses_1", "msg_1", "hello", agent="plan", model="a/b"))
        await agent.prompt(Prompt("ses_1", "msg_1", "hello", delivery="queue"))
    same = {"id": "msg_1", "text": "hello"}
    assert fake.bodies(PROMPT) == [{**same, "delivery": "steer"}, {**same, "delivery": "queue"}]


async def test_a_command_of_a_real_one_is_run_and_its_message_found(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))

    async def is_told() -> bool:
        return "init" in await agent.commands(str(tmp_path))

    # It reads what is there only after it was first asked.
    await eventually_async(is_told, "the command")
    async with listening(agent) as heard:
        message = await agent.run("init", Prompt(session.id, new_prompt_id(), "in one line"))
        await heard.until_idle(session.id)
    (answer,) = (await agent.turn(session.id, message)).answers
    assert "in one line" in answer.text
    # The next one is told from it.
    async with listening(agent) as heard:
        again = await agent.run("init", Prompt(session.id, new_prompt_id(), "in two lines"))
        await heard.until_idle(session.id)
    assert again not in {"", message}


async def test_a_command_that_is_not_there_is_refused(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    with pytest.raises(NotFound):
        await agent.run("no-such-command", Prompt(session.id, new_prompt_id(), ""))
