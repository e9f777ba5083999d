"""The fleet's OpenCode 2 before the launcher's guard: all that the one calls the other lets through, and no more."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from client.guard.guarded import CREDENTIALS, basic, guarded, opened
from opencode_connected.guard.policy import OpenedDirectory, Policy, Right
from opencode_connected.guard.upstream import Target
from opencode_fleet.agents import connect
from opencode_fleet.agents.opencode2 import OpenCode2
from opencode_fleet.errors import Forbidden, NotFound
from opencode_fleet.events import AskOpened, SessionChanged, TextChanged
from opencode_fleet.model import Permission, Question, Workplace
from support.opencodes.connected import client_for, listening, post
from support.opencodes.opencode2 import OPENCODE2_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.opencodes.opencode2 import Service2


@asynccontextmanager
async def behind_guard(service: Service2, policy: Policy) -> AsyncIterator[tuple[OpenCode2, list[Policy]]]:
    """Connect as the fleet does, to a guard with `policy`, which may be replaced in the list."""
    target = Target(service.url, basic("opencode", service.record()["password"]), 2, OPENCODE2_VERSION)
    async with guarded(target, policy) as guard:
        client = client_for(f"http://127.0.0.1:{guard.port}")
        client.authorize(*CREDENTIALS)
        try:
            agent = await connect(client)
            assert isinstance(agent, OpenCode2)
            yield agent, guard.policy
        finally:
            await client.aclose()


async def test_whatever_a_turn_needs_is_let_through(service2: Service2, tmp_path: Path) -> None:
    async with behind_guard(service2, opened(tmp_path)) as (agent, _):
        assert agent.version == OPENCODE2_VERSION
        assert agent.rights == frozenset({"observe", "drive", "approve"})
        session = await agent.create(str(tmp_path))
        async with listening(agent) as heard:
            prompt = await post(agent, session.id, "[BASH:echo guarded && echo well]")
            ask = (await heard.first(AskOpened)).ask
            snapshot = await agent.snapshot()
            assert isinstance(ask, Permission)
            assert ask.details == (("command", "echo guarded && echo well"),)
            assert snapshot.workplaces == [Workplace(directory=str(tmp_path), name=tmp_path.name)]
            assert [each.id for each in snapshot.sessions] == [session.id]
            assert snapshot.runs.asks == [ask]
            with pytest.raises(Forbidden, match="always"):
                await agent.reply(ask, "always", None)
            await agent.reply(ask, "once", None)
            await heard.until_idle(session.id)
            assert [text.text for text in heard.of(TextChanged, session.id)][-1] == "done. result: guarded\nwell\n"
            record = await agent.turn(session.id, prompt.id)
            assert record.answers[-1].ended == "well"

            heard.events.clear()
            await post(agent, session.id, "[ASK:Which colour?]")
            question = (await heard.first(AskOpened)).ask
            assert isinstance(question, Question)
            await agent.answer(question, [["blue"]])
            await heard.until_idle(session.id)

            heard.events.clear()
            await post(agent, session.id, "[ASK:Which other?]")
            question = (await heard.first(AskOpened)).ask
            assert isinstance(question, Question)
            await agent.decline(question)
            await heard.until_idle(session.id)
            await agent.interrupt(session.id)
            assert not (await agent.turn(session.id, "msg_nonesuch")).is_stored


async def test_what_was_not_opened_is_neither_shown_nor_driven(service2: Service2, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    async with behind_guard(service2, opened(outside)) as (other, _):
        hidden = await other.create(str(outside))
    async with behind_guard(service2, opened(inside)) as (agent, policy):
        shown = await agent.create(str(inside))
        assert [each.id for each in (await agent.snapshot()).sessions] == [shown.id]
        with pytest.raises((Forbidden, NotFound)):
            await agent.session(hidden.id)
        with pytest.raises((Forbidden, NotFound)):
            await post(agent, hidden.id, "not let through")
        with pytest.raises(Forbidden):
            await agent.create(str(outside))
        # A launcher opens the directory there: it is seen at the next look.
        directories = (OpenedDirectory(str(tmp_path), "", opened=False),)
        policy[0] = Policy(frozenset({Right.OBSERVE}), directories)
        snapshot = await agent.snapshot()
        assert {place.directory for place in snapshot.workplaces} == {str(inside), str(outside)}
        assert agent.rights == frozenset({"observe"})
        with pytest.raises(Forbidden, match="drive"):
            await post(agent, shown.id, "only to be seen")


async def test_another_directorys_events_are_not_told(service2: Service2, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    async with (
        behind_guard(service2, opened(outside)) as (other, _),
        behind_guard(service2, opened(inside)) as (agent, _),
        listening(agent) as heard,
    ):
        hidden = await other.create(str(outside))
        shown = await agent.create(str(inside))
        await heard.first(SessionChanged, lambda event: event.session_id == shown.id)
        assert hidden.id not in [event.session_id for event in heard.events if event is not None]
