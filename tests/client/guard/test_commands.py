"""OpenCode's commands through the guard: what acts unasked needs a right of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from client.guard.fake_agent import fake_agent, session_in
from client.guard.guarded import guarded, opened, refusal
from opencode_connected.guard.commands import acts_unasked
from opencode_connected.guard.policy import DEFAULT_RIGHTS, Right

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

TEMPLATES = {
    "plain": "Say hello to $ARGUMENTS",
    "shell": "Today !`date`",
    "split": "a!$1`id`",
    "file": "Read @src/$1",
    "quoting": "Review `$ARGUMENTS` thoroughly!",
}
LIST = [{"name": name, "template": template} for name, template in TEMPLATES.items()]


@pytest.mark.parametrize(
    ("name", "arguments", "acts"),
    [
        ("plain", "Ann, and well!", False),
        ("plain", "the `name`", False),
        ("plain", "!`id`", True),
        ("plain", "!x `id`", True),
        ("plain", "@~/.ssh/id_rsa", True),
        ("shell", "", True),
        # The placeholder becomes nothing, and what was around it is a shell's.
        ("split", "", True),
        ("file", "../../.ssh/id_rsa", True),
        ("quoting", "main", False),
        # JavaScript puts what stands after the placeholder for $': the second one's backtick follows the first one's
        # exclamation mark, and that is a shell.
        ("quoting", "$'$'; touch /tmp/pwned; $'", True),
        ("quoting", "$`", True),
        ("plain", "$&", True),
        ("plain", "$ARGUMENTS", True),
        ("unknown", "", True),
        ("plain", 5, True),
    ],
)
def test_a_command_acts_unasked_if_template_and_arguments_together_can(
    name: str, arguments: object, acts: bool
) -> None:
    assert acts_unasked(name, arguments, LIST) is acts
    assert acts_unasked(name, arguments, {"data": LIST}) is acts


@pytest.mark.parametrize(
    "told", [None, [], {}, {"data": 5}, [5], [{"name": "plain"}], [{"name": "plain", "template": 5}]]
)
def test_what_is_not_told_whole_may_do_anything(told: object) -> None:
    assert acts_unasked("plain", "", told)


def test_backticks_join_a_template_that_ends_before_them() -> None:
    assert acts_unasked("x", "`id`", [{"name": "x", "template": "wow!$1"}])
    assert acts_unasked("x", "!", [{"name": "x", "template": "$1`id`"}])


async def run(generation: int, name: str, rights: Iterable[Right], templates: object) -> tuple[httpx.Response, bool]:
    """Run a command through a guard; return its answer, and whether it reached OpenCode."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/session/ses_a"):
            if generation == 2:
                return session_in("/opened")
            return web.json_response({"id": "ses_a", "directory": "/opened"})
        if request.method == "GET":
            assert "/opened" in request.query_string.replace("%2F", "/")
            return web.json_response(templates)
        return web.json_response({})

    path = "/api/session/ses_a/command" if generation == 2 else "/session/ses_a/command"
    body = {"name": name, "text": "Ann"} if generation == 2 else {"command": name, "arguments": "Ann"}
    async with (
        fake_agent(answer) as fake,
        guarded(fake.target(generation), opened("/opened", rights=rights)) as guard,
    ):
        told = await guard.client.post(path, json=body)
        return told, any(method == "POST" for method, *_ in fake.requests)


@pytest.mark.parametrize(
    ("generation", "name", "rights", "reaches"),
    [
        (1, "plain", DEFAULT_RIGHTS, True),
        (1, "shell", DEFAULT_RIGHTS, False),
        (1, "shell", {*DEFAULT_RIGHTS, Right.COMMANDS_WITH_SHELL}, True),
        (1, "unknown", DEFAULT_RIGHTS, False),
        (1, "plain", {Right.OBSERVE, Right.COMMANDS_WITH_SHELL}, False),
        (2, "plain", {*DEFAULT_RIGHTS, Right.COMMANDS_WITH_SHELL}, True),
    ],
)
async def test_a_command_reaches_opencode_only_if_the_laptops_owner_lets_it(
    generation: int, name: str, rights: set[Right], reaches: bool
) -> None:
    told, reached = await run(generation, name, rights, LIST)
    assert reached is reaches
    if not reaches:
        missing = Right.COMMANDS_WITH_SHELL if Right.DRIVE in rights else Right.DRIVE
        assert f"does not let `{missing}` through" in refusal(told)
        assert told.json()["data"]["right"] == missing


async def test_opencode_2_does_not_tell_templates_so_each_command_needs_the_right() -> None:
    told, reached = await run(2, "plain", DEFAULT_RIGHTS, {"data": [{"name": "plain"}]})
    assert not reached
    assert "does not let `commands-with-shell` through" in refusal(told)


def test_the_right_is_not_given_by_default() -> None:
    assert Right.COMMANDS_WITH_SHELL not in DEFAULT_RIGHTS
