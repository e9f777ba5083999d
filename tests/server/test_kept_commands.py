"""Commands whose server ends in the middle: not run again by the next one, which says that their end is not known."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.errors import InstanceError, Refused, Rejected, Unreachable, Unresponsive
from opencode_mcp.tools.read import read
from support.fleet.asleep import ignored
from support.fleet.fake_relay import fake_copy, fake_relay, structured
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_fleet.model import Outcome, Prompt
    from support.fleet.fake_relay import FakeRelay


class Slow(FakeAgent):
    """An agent that does not say yet that it took a command, nor in the end if `trouble_of_command` says why."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.trouble_of_command: InstanceError | None = None

    async def run(self, name: str, prompt: Prompt) -> str:
        """See `Agent.run`."""
        prompt_id = await super().run(name, prompt)
        await self.answers.wait()
        if self.trouble_of_command is not None:
            raise self.trouble_of_command
        return prompt_id


async def sent(relay: FakeRelay, message: str = "/greet Ann") -> Outcome:
    instance = await relay.fleet.find_live("laptop")
    return await relay.face.driver.send(instance, message, None, ignored)


async def problem(relay: FakeRelay) -> str:
    """Return what `read` says is wrong."""
    return str(structured(await read(relay.face, Notes().context(), "laptop")).get("problem", ""))


@asynccontextmanager
async def after_one_that_ended(state_dir: Path, agent: Slow) -> AsyncIterator[FakeRelay]:
    """Run a copy after one whose caller went away in the middle of a command, and which never comes back to it."""
    agent.add_session("/")
    async with fake_relay(state_dir, laptop=agent) as first:
        call = asyncio.create_task(sent(first))
        await eventually_async(lambda: agent.ran, "the command")
        call.cancel()
        await asyncio.wait({call})
        async with fake_copy(state_dir, {"laptop": agent}, may_lead=False) as second:
            await second.fleet.find_live("laptop")
            yield second


async def test_the_same_call_to_the_next_server_is_refused_once_and_then_runs(tmp_path: Path) -> None:
    agent = Slow()
    async with after_one_that_ended(tmp_path, agent) as relay:
        with pytest.raises(
            Refused, match=r"/greet was being sent here when a server ended .* not known whether it ran"
        ):
            await sent(relay)
        assert len(agent.ran) == 1
        agent.answers.set()
        assert not await problem(relay)
        outcome = await sent(relay)
        assert (outcome.result, outcome.note) == ("done", "")
        assert len(agent.ran) == 2


async def test_the_conversation_says_so_until_the_next_message_was_told(tmp_path: Path) -> None:
    agent = Slow()
    async with after_one_that_ended(tmp_path, agent) as relay:
        for _ in range(2):
            assert "/greet was being sent here when a server ended" in await problem(relay)
        outcome = await sent(relay, "hello")
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        assert "/greet was being sent here when a server ended" in outcome.note
        assert not await problem(relay)
        assert not (await sent(relay, "and again")).note


async def test_one_that_was_taken_is_not_run_again_by_the_next_server_and_is_no_trouble(tmp_path: Path) -> None:
    agent = Slow()
    agent.answers.set()
    agent.gate.clear()
    async with after_one_that_ended(tmp_path, agent) as relay:
        agent.gate.set()
        outcome = await sent(relay)
        assert (outcome.result, len(agent.ran)) == ("running", 1)
        assert "nothing was sent again" in outcome.note
        assert not await problem(relay)


async def test_one_whose_answer_may_be_lost_is_not_run_again_by_the_next_server(tmp_path: Path) -> None:
    agent = Slow()
    agent.answers.set()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        assert (await sent(relay)).result == "done"
        # Its caller knows by now, and means the next one to this server anew.
        assert (await sent(relay)).result == "done"
    async with fake_relay(tmp_path, laptop=agent) as relay:
        assert "nothing was sent again" in (await sent(relay)).note
        assert len(agent.ran) == 2


@pytest.mark.parametrize(
    "trouble", [Unresponsive("no answer"), Rejected("no such agent", status=400), Unreachable("gone", refused=True)]
)
async def test_one_whose_caller_was_told_what_went_wrong_leaves_nothing(
    tmp_path: Path, trouble: InstanceError
) -> None:
    agent = Slow()
    agent.add_session("/")
    agent.answers.set()
    agent.trouble_of_command = trouble
    async with fake_relay(tmp_path, laptop=agent) as relay:
        with pytest.raises(InstanceError):
            await sent(relay)
        assert not relay.journal.state_keys("command/")
