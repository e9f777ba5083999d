"""What a real OpenCode 2 asks a person: whole, and settled once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.errors import NotFound, Refused
from opencode_fleet.events import AskOpened, AskSettled, SessionChanged
from opencode_fleet.model import Permission, Question
from support.opencodes.connected import WITHIN, guard_document, listening, opencode2_at, post
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.agents.opencode2 import OpenCode2
    from support.opencodes.opencode2 import Service2
    from support.opencodes.scripted_model import ScriptedModel


async def test_a_command_is_asked_for_whole_and_not_in_pieces(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[BASH:cd . && echo one | cat; echo two]")
        told = (await heard.first(AskOpened)).ask
        # One that came later, and heard of no tool call.
        async with opencode2_at(service2, guard_document({str(tmp_path): "laptop-api"})) as later:
            (listed,) = (await later.runs()).asks
        assert isinstance(told, Permission)
        assert told == listed
        assert told.session_id == session.id
        assert told.action == "shell"
        assert told.details == (("command", "cd . && echo one | cat; echo two"),)
        assert told.is_split
        assert told.is_whole
        assert set(told.patterns) == {"echo one", "cat", "echo two"}
        assert told.always == ("echo *", "cat *")
        assert "every clone and worktree" in told.always_means
        assert told.always_refused == ""

        await agent.reply(told, "once", None)
        with pytest.raises(NotFound):
            await agent.reply(told, "once", None)
        await heard.until_idle(session.id)
    assert [event.how for event in heard.of(AskSettled, session.id)] == ["once"]
    assert (await agent.messages(session.id, 1))[-1].text == "done. result: one\ntwo\n"


async def test_an_edit_is_asked_for_with_what_it_changes(agent: OpenCode2, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before\n")
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[WRITE:a.txt=after]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        ((label, diff),) = ask.details
        assert label == "diff of a.txt"
        assert "-before" in diff
        assert "+after" in diff
        assert ask.patterns == ("a.txt",)
        assert not ask.is_split
        assert ask.is_whole
        assert ask.always == ("every edit",)
        await agent.reply(ask, "reject", "a reason that would be lost")
        await heard.until_idle(session.id)
    assert (tmp_path / "a.txt").read_text() == "before\n"


async def test_a_rejection_ends_the_turn_without_a_note_of_its_end(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "[BASH:echo rejected]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        await agent.reply(ask, "reject", None)
        await heard.until_idle(session.id)
    record = await agent.turn(session.id, prompt.id)
    assert record.is_interrupted
    (call,) = [part.call for part in record.answers[-1].parts if part.call]
    assert call.status == "error"
    assert "declined" in call.error


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository without a commit."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


async def test_always_is_not_to_be_had_where_repositories_without_a_commit_share_it(
    agent: OpenCode2, repository: Path
) -> None:
    session = await agent.create(str(repository))
    async with listening(agent) as heard:
        await post(agent, session.id, "[BASH:echo shared]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        assert "all repositories without a commit share" in ask.always_refused
        with pytest.raises(Refused, match="Nothing was settled"):
            await agent.reply(ask, "always", None)
        assert [each.id for each in (await agent.runs()).asks] == [ask.id]
        await agent.reply(ask, "once", None)
        await heard.until_idle(session.id)


async def test_always_is_kept_there_and_asks_no_more(agent: OpenCode2, service2: Service2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[BASH:printf always]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        await agent.reply(ask, "always", None)
        await heard.until_idle(session.id)
        heard.events.clear()
        await post(agent, session.id, "[BASH:printf again]")
        await heard.until_idle(session.id)
    assert heard.of(AskOpened, session.id) == []
    assert (await agent.messages(session.id, 1))[-1].text.startswith("done. result: again")


async def test_a_question_is_asked_with_its_options_and_takes_values_and_free_text(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[ASK:Which colour?;Which other?]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Question)
        assert (await agent.runs()).asks == [ask]
        assert [item.question for item in ask.items] == ["Which colour?", "Which other?"]
        options = ask.items[0].options
        assert [(each.label, each.value, each.description) for each in options] == [
            ("red", "red", "choose red"),
            ("blue", "blue", "choose blue"),
        ]
        assert not ask.items[0].multiple
        with pytest.raises(Refused):
            await agent.answer(ask, [[], []])
        with pytest.raises(Refused):
            await agent.answer(ask, [["red"]])
        await agent.answer(ask, [["blue"], ["a free text, with a comma"]])
        with pytest.raises(NotFound):
            await agent.answer(ask, [["red"], ["red"]])
        with pytest.raises(NotFound):
            await agent.decline(ask)
        await heard.until_idle(session.id)
    assert [event.how for event in heard.of(AskSettled, session.id)] == ["answered"]
    answer = (await agent.messages(session.id, 1))[-1].text
    assert '"Which colour?"="blue"' in answer
    assert '"Which other?"="a free text, with a comma"' in answer


async def test_a_question_that_is_declined_ends_the_turn(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "[ASK:Which colour?]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Question)
        await agent.decline(ask)
        await heard.until_idle(session.id)
    assert [event.how for event in heard.of(AskSettled, session.id)] == ["declined"]
    assert (await agent.turn(session.id, prompt.id)).is_interrupted


async def test_a_form_with_fields_of_every_type_is_answered_by_their_types(
    agent: OpenCode2, service2: Service2, tmp_path: Path, model: ScriptedModel
) -> None:
    options = [{"value": "r", "label": "Red"}, {"value": "b", "label": "Blue"}]
    fields: list[dict[str, Any]] = [
        {"key": "several", "type": "multiselect", "description": "Which?", "options": options},
        {"key": "count", "type": "integer", "title": "How many"},
        {"key": "share", "type": "number", "title": "How much"},
        {"key": "sure", "type": "boolean", "title": "Sure"},
        {"key": "secret", "type": "string", "title": "Hidden", "hidden": True},
        {"key": "why", "type": "string", "title": "Why", "when": [{"key": "sure", "op": "eq", "value": True}]},
    ]
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "asked from elsewhere GATE:opencode2-form")
        with service2.client() as client:
            body = {"title": "A form", "fields": fields}
            made = client.post(f"/api/session/{session.id}/form", json=body)
            made.raise_for_status()
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Question)
        assert (await agent.runs()).asks == [ask]
        assert [(item.key, item.multiple) for item in ask.items] == [
            ("several", True),
            ("count", False),
            ("share", False),
            ("sure", False),
            ("why", False),
        ]
        with pytest.raises(Refused, match="not a number"):
            await agent.answer(ask, [["r"], ["many"], ["1"], ["yes"], ["so"]])
        with pytest.raises(Refused, match="not yes or no"):
            await agent.answer(ask, [["r"], ["1"], ["1"], ["perhaps"], ["so"]])
        await agent.answer(ask, [["r", "b"], ["3"], ["0.5"], ["no"], ["not asked for then"]])
        replied = await _form_state(service2, session.id, ask.id)
        model.release("opencode2-form")
        await heard.until_idle(session.id)
    assert replied == {"several": ["r", "b"], "count": 3, "share": 0.5, "sure": False}


async def test_a_subagents_ask_is_told_under_its_own_session(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[TASK:{BASH:echo below}]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        made = await heard.first(SessionChanged, lambda event: event.session.parent_id == session.id)
        assert ask.session_id == made.session_id != session.id
        assert ask.details == (("command", "echo below"),)
        snapshot = await agent.snapshot()
        assert {session.id, ask.session_id} <= set(snapshot.runs.statuses)
        assert {s.id: s.parent_id for s in snapshot.sessions}[ask.session_id] == session.id
        assert snapshot.runs.asks == [ask]
        await agent.reply(ask, "once", None)
        await heard.until_idle(session.id)
    assert "below" in (await agent.messages(session.id, 1))[-1].text


async def test_an_ask_of_an_interrupted_turn_is_gone(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[BASH:echo gone]")
        ask = (await heard.first(AskOpened)).ask
        assert isinstance(ask, Permission)
        await agent.interrupt(session.id)
        await heard.until_idle(session.id)
    assert (await agent.runs()).asks == []
    with pytest.raises(NotFound):
        await agent.reply(ask, "once", None)


async def _form_state(service2: Service2, session_id: str, form_id: str) -> object:
    """Return what a form was answered, as OpenCode itself has it."""

    def state() -> object:
        with service2.client() as client:
            told = client.get(f"/api/session/{session_id}/form/{form_id}").json()["data"]
        return told.get("state", told).get("answer")

    return await eventually_async(state, "the form's answer", within=WITHIN)
