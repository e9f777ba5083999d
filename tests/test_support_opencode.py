"""What the relay relies on in OpenCode, asked of the real one: the canary for its new versions.

Each test is a measured fact that the server or the launcher stands on. One that fails with a new OpenCode says what
to change there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from support.chat.plain_http import NO_TLS
from support.opencodes.events import PLAIN_TURN, new_session, session_of
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.scripted_model import ScriptedModel


async def test_a_plain_turn_has_the_order_of_events_that_the_notes_list(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        assert await session.turn("plain words") == PLAIN_TURN


async def test_reasoning_streams_before_the_text_and_its_deltas_are_told_apart_by_their_part(
    opencode: ServedOpenCode,
) -> None:
    async with new_session(opencode.url) as session:
        words = await session.turn("THINK first")
        assert words.index("reasoning") < words.index("reasoning full") < words.index("text")
        deltas = [e["properties"] for e in session.events if e["type"] == "message.part.delta"]
        assert {delta["field"] for delta in deltas} == {"text"}
        assert len({delta["partID"] for delta in deltas}) == 2


async def test_text_streams_up_to_a_gate_and_goes_on_when_it_is_released(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("before GATE:support-gate after")
        await eventually_async(lambda: "before" in session.streamed())
        await eventually_async(lambda: model.reached("support-gate"))
        assert "after" not in session.streamed()
        model.release("support-gate")
        await session.seen("session.idle")
        assert session.streamed() == "echo: before  after"


async def test_a_command_waits_for_a_permission_and_goes_on_once_it_is_given(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("[BASH:echo asked-for]")
        asked = await session.seen("permission.asked")
        assert asked["properties"]["metadata"] == {"command": "echo asked-for"}
        listed = (await session.client.get("/permission")).json()
        assert listed == [asked["properties"]]
        await session.client.post(f"/permission/{listed[0]['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle")
        words = session.outline()
        assert words.index("permission.asked") < words.index("permission.replied") < words.index("bash completed")
        assert session.streamed() == "done. result: asked-for\n"


async def test_a_question_waits_for_its_answer(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("[ASK:which colour?]")
        asked = await session.seen("question.asked")
        await session.client.post(f"/question/{asked['properties']['id']}/reply", json={"answers": [["blue"]]})
        await session.seen("session.idle")
        assert "question.replied" in session.outline()
        assert '"which colour?"="blue"' in session.streamed()


async def test_a_subagent_has_a_session_of_its_own_and_asks_there(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("[TASK:{BASH:echo below}]")
        asked = await session.seen("permission.asked")
        child = session_of(asked)
        created = [e["properties"]["info"] for e in session.events if e["type"] == "session.created"]
        assert [info["parentID"] for info in created if info["id"] == child] == [session.id]
        busy = (await session.client.get("/session/status")).json()
        assert busy[session.id] == busy[child] == {"type": "busy"}
        await session.client.post(f"/permission/{asked['properties']['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle", times=2)
        assert "below" in session.streamed()


async def test_an_abort_ends_in_an_error_and_a_second_idle(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("words GATE:never-released")
        await eventually_async(lambda: "words" in session.streamed())
        await session.abort()
        await session.seen("session.idle", times=2)
        assert "session.error" in session.outline()
        assert "assistant MessageAbortedError" in session.outline()


async def test_a_client_error_of_the_model_ends_the_turn_and_a_server_error_is_retried(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        assert "session.error" in await session.turn("FAIL401 refused")
    async with new_session(opencode.url) as session:
        words = await session.turn("FAIL503x1 RETRYAFTER overloaded")
        assert words.index("retry") < words.index("assistant stop")
        assert len(model.turns("overloaded", session.id)) == 2


async def test_several_calls_run_one_after_another_or_all_at_once(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        await session.turn("[TODO:one;two] [READ:missing]")
        assert {r.step for r in model.requests if r.session == session.id} >= {0, 1, 2}
    async with new_session(opencode.url) as session:
        await session.turn("PARALLEL [TODO:three] [TODO:four]")
        assert max(r.step for r in model.requests if r.session == session.id) == 2
        assert len([r for r in model.requests if r.session == session.id and not r.for_title]) == 2


async def test_edits_go_to_the_file(opencode: ServedOpenCode) -> None:
    file = opencode.cwd / "edited.txt"
    async with new_session(opencode.url) as session:
        await session.prompt(f"[WRITE:{file}=old text] [EDIT:{file}=old=new]")
        for times in (1, 2):
            asked = await session.seen("permission.asked", times=times)
            await session.client.post(f"/permission/{asked['properties']['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle")
    assert file.read_text() == "new text"


async def test_text_that_streams_is_empty_over_rest_until_it_is_whole(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("visible GATE:rest-gate later")
        await eventually_async(lambda: "visible" in session.streamed())
        texts = [part["text"] for part in (await session.messages())[-1]["parts"] if part["type"] == "text"]
        assert texts == [""]
        model.release("rest-gate")
        await session.seen("session.idle")
        assert (await session.messages())[-1]["parts"][1]["text"] == "echo: visible  later"


async def test_a_prompt_posted_again_with_the_same_ids_is_not_sent_twice(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    message_id, part_id = "msg_206ef2e8f001YRgLZ6ke2crCbn", "prt_206ef2e8f001YRgLZ6ke2crCbn"
    body = {"messageID": message_id, "parts": [{"id": part_id, "type": "text", "text": "only once"}]}
    async with new_session(opencode.url) as session:
        await session.turn("", **body)
        await session.turn("", **body)
        asked, answered = await session.messages()
        assert (asked["info"]["id"], [part["text"] for part in asked["parts"]]) == (message_id, ["only once"])
        assert answered["info"]["parentID"] == message_id
        assert len(model.turns("only once", session.id)) == 1


async def test_prompts_to_a_busy_session_are_accepted_and_get_one_answer_together(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("first GATE:queue-gate")
        await eventually_async(lambda: "first" in session.streamed())
        await session.prompt("second")
        await session.prompt("third")
        model.release("queue-gate")
        await session.seen("session.idle")
        messages = await session.messages()
        third = next(m["info"]["id"] for m in messages if m["parts"][0].get("text") == "third")
        answers = [m["info"]["parentID"] for m in messages if m["info"]["role"] == "assistant"]
        assert len(answers) == 2
        assert answers[-1] == third


async def test_the_asks_of_an_aborted_turn_stay_listed_while_nothing_runs(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("[BASH:echo stale]")
        asked = await session.seen("permission.asked")
        await session.abort()
        await session.seen("session.idle")
        assert session.id not in (await session.client.get("/session/status")).json()
        stale = [ask["id"] for ask in (await session.client.get("/permission")).json()]
        assert stale == [asked["properties"]["id"]]
        await session.client.post(f"/permission/{stale[0]}/reply", json={"reply": "reject"})
        assert (await session.client.get("/permission")).json() == []


async def test_a_rejected_permission_ends_the_turn_without_an_error_and_without_text(
    opencode: ServedOpenCode,
) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("[BASH:echo refused]")
        asked = await session.seen("permission.asked")
        await session.client.post(f"/permission/{asked['properties']['id']}/reply", json={"reply": "reject"})
        await session.seen("session.idle")
        answer = (await session.messages())[-1]
        assert answer["info"]["finish"] == "tool-calls"
        assert "error" not in answer["info"]
        assert [part["type"] for part in answer["parts"] if part["type"] == "text"] == []


async def test_a_model_that_drops_its_stream_is_asked_again_and_again_until_the_turn_is_aborted(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("DROPMID")
        await eventually_async(lambda: len(model.turns("DROPMID", session.id)) >= 3, "a third request", within=30)
        await session.abort()
        await session.seen("session.idle")
        assert "assistant unknown" in session.outline()


async def test_an_unknown_agent_ends_in_an_error_without_ever_being_busy(opencode: ServedOpenCode) -> None:
    async with new_session(opencode.url) as session:
        await session.prompt("nobody there", agent="no-such-agent")
        error = await session.seen("session.error")
        assert session_of(error) == session.id
        assert not {"busy", "idle"} & set(session.outline())


async def test_unknown_paths_are_answered_with_a_page_and_unknown_sessions_with_404(opencode: ServedOpenCode) -> None:
    with opencode.client() as client:
        page = client.get("/no/such/route")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html")
        assert client.get("/session/ses_nowhere").status_code == 404


async def test_processes_of_one_user_share_sessions_and_not_what_runs(
    opencode: ServedOpenCode, opencode_home: OpenCodeHome, model: ScriptedModel
) -> None:
    with ServedOpenCode(opencode_home, opencode.cwd) as other, other.client() as client:
        async with new_session(opencode.url) as session:
            await session.prompt("shared GATE:shared-gate")
            await eventually_async(lambda: "shared" in session.streamed())
            assert client.get(f"/session/{session.id}").json()["id"] == session.id
            assert client.get("/session/status").json() == {}
            model.release("shared-gate")
            await session.seen("session.idle")


async def test_an_event_stream_ends_when_its_instance_is_disposed(
    opencode_home: OpenCodeHome, tmp_path: Path
) -> None:
    with ServedOpenCode(opencode_home, tmp_path / "project") as served:
        async with httpx.AsyncClient(base_url=served.url, timeout=30, trust_env=False, verify=NO_TLS) as client:

            async def listen() -> list[str]:
                async with client.stream("GET", "/event") as stream:
                    return [line async for line in stream.aiter_lines() if line]

            listener = asyncio.create_task(listen())

            async def ended() -> bool:
                # A disposal right after the connection goes unnoticed: that stream lives on, and loses nothing. And
                # there is nothing to dispose of until something is asked for.
                await client.post("/session", json={})
                await client.post("/global/dispose")
                return listener.done()

            await eventually_async(ended, "the end of the stream")
            assert "server.instance.disposed" in (await listener)[-1]
