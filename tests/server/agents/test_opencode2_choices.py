"""What a person can choose on OpenCode 2, and how a session is told to go on with it."""

from __future__ import annotations

from opencode_fleet.model import Prompt
from support.agents import opencode2_behind
from support.fake_opencode2 import GUARD, HOME, FakeOpenCode2

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
