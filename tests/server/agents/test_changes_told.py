"""What each generation tells of changes, where it surprises: what it counts and shows, and what it does not."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.agents.http import LARGE_BODY, SMALL_BODY
from opencode_fleet.agents.opencode1 import OpenCode1
from opencode_fleet.changes import FileChange, Todo, WorkingTree
from opencode_fleet.errors import BadAnswer
from support.opencodes.connected import client_for, opencode2_behind
from support.opencodes.fake_http import FakeHttp
from support.opencodes.fake_opencode2 import GUARD, FakeOpenCode2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.agent import Agent

HOME = "/home/ann/api"
GENERATIONS = pytest.mark.parametrize("generation", [1, 2])
Json = dict[str, Any]

COUNTED = [
    {"file": "sub/new.py", "additions": 3, "deletions": 0, "status": "added"},
    {"file": "sub/b.py", "additions": 1, "deletions": 1, "status": "modified"},
    {"file": 5, "additions": 1},
]
PATCH = "diff --git a/sub/b.py b/sub/b.py\n@@ -1 +1 @@\n-a\n+b\n"
# As OpenCode 1.18.33 tells a new file below the root of its repository.
PATCHED = [
    {"file": "sub/b.py", "additions": 1, "deletions": 1, "status": "modified", "patch": PATCH},
    {"file": "sub/new.py", "additions": 0, "deletions": 0, "status": "added", "patch": "Index: sub/new.py\n"},
]
FILES = (
    FileChange(file="sub/b.py", status="modified", additions=1, deletions=1, patch=PATCH),
    FileChange(file="sub/new.py", status="added", additions=3, patch="Index: sub/new.py\n"),
)


def answers(generation: int) -> Json:
    """Return what a git repository with two changed files answers."""
    if generation == 1:
        return {
            "GET /global/health": {"healthy": True, "version": "1.18.33"},
            "GET /path": {"directory": HOME},
            "GET /vcs": {"branch": "fix", "default_branch": "main"},
            "GET /vcs/status": COUNTED,
            f"GET /vcs/diff?directory={HOME}&mode=git&context=3": PATCHED,
        }
    return {
        "GET /api/vcs": {"data": {"provider": "git", "branch": {"current": "fix", "default": "main"}}},
        "GET /api/vcs/status": {"data": COUNTED},
        f"GET /api/vcs/diff?location%5Bdirectory%5D={HOME}&mode=working&context=3": {"data": PATCHED},
    }


def diff_of(generation: int) -> str:
    return next(call for call in answers(generation) if "/diff" in call).partition("?")[0]


@asynccontextmanager
async def an_agent(generation: int, told: Json) -> AsyncIterator[Agent]:
    if generation == 2:
        async with FakeOpenCode2(told) as fake, opencode2_behind(fake.url, GUARD) as agent:
            yield agent
        return
    async with FakeHttp(told) as first:
        client = client_for(first.url)
        try:
            yield await OpenCode1.connect(client)
        finally:
            await client.aclose()


@GENERATIONS
async def test_the_working_tree_has_counts_of_all_files_and_patches_of_those_that_are_told(generation: int) -> None:
    async with an_agent(generation, answers(generation)) as agent:
        tree = await agent.working_tree(HOME)
    assert tree == WorkingTree(branch="fix", default_branch="main", files=FILES)


@GENERATIONS
async def test_patches_that_are_too_large_together_hide_no_counts(generation: int) -> None:
    large = {"file": "b", "patch": "x" * LARGE_BODY}
    flood = {diff_of(generation): [large] if generation == 1 else {"data": [large]}}
    told = {call: answer for call, answer in answers(generation).items() if "?" not in call}
    async with an_agent(generation, {**told, **flood}) as agent:
        tree = await agent.working_tree(HOME)
    assert [(each.file, each.additions, each.patch) for each in tree.files] == [
        ("sub/b.py", 1, ""),
        ("sub/new.py", 3, ""),
    ]


@GENERATIONS
async def test_a_directory_without_version_control_has_no_branch_and_no_files(generation: int) -> None:
    nothing: dict[int, Json] = {
        1: {"GET /vcs": {"branch": None, "default_branch": None}, "GET /vcs/status": [], "GET /vcs/diff": []},
        2: {
            "GET /api/vcs": {"data": {"branch": {}}},
            "GET /api/vcs/status": {"data": []},
            "GET /api/vcs/diff": {"data": []},
        },
    }
    told = {call: answer for call, answer in answers(generation).items() if "vcs" not in call}
    async with an_agent(generation, told | nothing[generation]) as agent:
        assert await agent.working_tree(HOME) == WorkingTree()


@GENERATIONS
@pytest.mark.parametrize("odd", [None, "words", {"data": 5}, 7])
async def test_lists_of_another_shape_are_refused(generation: int, odd: object) -> None:
    status = "GET /vcs/status" if generation == 1 else "GET /api/vcs/status"
    async with an_agent(generation, answers(generation) | {status: odd}) as agent:
        with pytest.raises(BadAnswer):
            await agent.working_tree(HOME)


def message(message_id: str, role: str) -> Json:
    part = {"id": f"prt_{message_id}", "type": "text", "text": "x"}
    return {"info": {"id": message_id, "role": role, "sessionID": "ses_1", "time": {"created": 1}}, "parts": [part]}


async def test_generation_1_tells_what_the_turn_of_the_newest_prompt_changed() -> None:
    told = answers(1) | {
        "GET /session/ses_1/message": [
            message("msg_1", "user"),
            message("msg_2", "user"),
            message("msg_3", "assistant"),
        ],
        "GET /session/ses_1/diff?messageID=msg_2": PATCHED[:1],
        "GET /session/ses_2/message": [],
    }
    async with an_agent(1, told) as agent:
        assert await agent.turn_changes("ses_1") == FILES[:1]
        assert await agent.turn_changes("ses_2") == ()


async def test_generation_2_tells_it_by_itself() -> None:
    async with an_agent(2, {"GET /api/session/ses_1/diff?context=3": {"data": PATCHED[:1]}}) as agent:
        assert await agent.turn_changes("ses_1") == FILES[:1]


@GENERATIONS
async def test_a_turn_that_changed_too_much_to_be_told_leads_to_the_working_tree(generation: int) -> None:
    refused = (502, json.dumps({"name": "AnswerTooLarge", "data": {"message": "more than 8 MiB: ask for less"}}))
    told: dict[int, Json] = {
        1: {"GET /session/ses_1/message": [message("msg_1", "user")], "GET /session/ses_1/diff": refused},
        2: {"GET /api/session/ses_1/diff": refused},
    }
    tree = {diff_of(generation): refused}
    usual = {call: answer for call, answer in answers(generation).items() if "?" not in call}
    async with an_agent(generation, usual | told[generation] | tree) as agent:
        with pytest.raises(BadAnswer, match=r"more than 8 MiB.*`changes` without `session`"):
            await agent.turn_changes("ses_1")
        assert [each.additions for each in (await agent.working_tree(HOME)).files] == [1, 3]


@GENERATIONS
async def test_a_session_that_took_back_large_changes_is_read_and_controlled_all_the_same(generation: int) -> None:
    """Also where no guard, or an older one, leaves the changes out."""
    revert = {"messageID": "msg_a", "diff": "d" * 2 * SMALL_BODY}
    session = {"id": "ses_1", "directory": HOME, "location": {"directory": HOME}, "revert": revert}
    first = [f"POST /session/ses_1/{act}" for act in ("revert", "unrevert", "fork")]
    told: dict[int, Json] = {
        1: {
            "GET /session": [session],
            **dict.fromkeys([*first, "GET /session/ses_1", "PATCH /session/ses_1"], session),
        },
        2: {
            "GET /api/session": {"data": [session]},
            "GET /api/session/ses_1": {"data": session},
            "POST /api/session/ses_1/fork": {"data": session},
            "POST /api/session/ses_1/revert/stage": {"data": revert},
        },
    }
    async with an_agent(generation, answers(generation) | told[generation]) as agent:
        assert [each.undone_from for each in await agent.sessions(HOME, 5)] == ["msg_a"]
        assert (await agent.session("ses_1")).undone_from == "msg_a"
        assert (await agent.controls.fork("ses_1")).undone_from == "msg_a"
        await agent.controls.undo("ses_1", "msg_a")
        if generation == 1:
            await agent.controls.redo("ses_1")
            await agent.controls.rename("ses_1", "tea")
            await agent.controls.archive("ses_1")


async def test_only_generation_1_keeps_a_list_of_what_there_is_to_do() -> None:
    kept = [{"content": "write a test", "status": "pending", "priority": "low"}, {"content": 5}, "odd"]
    async with an_agent(1, answers(1) | {"GET /session/ses_1/todo": kept}) as agent:
        assert await agent.todos("ses_1") == [Todo(text="write a test", status="pending"), Todo(text="")]
    async with an_agent(2, {}) as agent:
        assert await agent.todos("ses_1") == []


@GENERATIONS
async def test_a_message_by_itself_tells_what_its_calls_changed(generation: int) -> None:
    if generation == 1:
        state: Json = {"status": "completed", "output": "done", "metadata": {"diff": PATCH}}
        part = {"id": "prt_1", "type": "tool", "tool": "edit", "state": state}
        whole: object = {**message("msg_1", "assistant"), "parts": [part]}
        told = answers(1) | {"GET /session/ses_1/message/msg_1": whole}
    else:
        state = {"status": "completed", "metadata": {"files": [{"file": "a", "patch": PATCH}, 5, {"patch": 5}]}}
        content = [{"type": "tool", "id": "call_1", "name": "edit", "state": state}]
        whole = {"data": {"id": "msg_1", "type": "assistant", "time": {"created": 1}, "content": content}}
        told = {"GET /api/session/ses_1/message/msg_1": whole}
    async with an_agent(generation, told) as agent:
        (part_told,) = (await agent.message("ses_1", "msg_1")).parts
    assert part_told.call is not None
    assert part_told.call.diff == PATCH
