"""`opencode-mcp call`: the tools at a terminal, against real OpenCode."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pexpect
import pytest

from support.chat.mcp_client import SERVER_COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.driven import Driven

pytestmark = pytest.mark.generations(1)


@pytest.fixture
def environment(laptop: Driven, tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RELAY_REGISTRY_DIR": str(laptop.registry)}


def call(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(SERVER_COMMAND), "call", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_message_is_answered_and_what_comes_before_goes_to_standard_error(environment: dict[str, str]) -> None:
    sent = call(environment, "send", "instance=laptop", "message=a=b [words]", "session=new")
    assert sent.returncode == 0, sent.stderr
    assert "echo: a=b [words]" in sent.stdout
    assert sent.stderr.endswith("\n")
    listed = call(environment, "instances", "--json")
    assert [row["name"] for row in json.loads(listed.stdout)["instances"]] == ["laptop"]


def test_a_tool_error_is_the_programs_and_wrong_usage_calls_nothing(environment: dict[str, str]) -> None:
    failed = call(environment, "read", "instance=nowhere")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("opencode-mcp: no instance is named 'nowhere'")
    for words, said in (
        (("send", "message=x"), "`send` needs instance"),
        (("send", "instance=laptop", "mesage=x"), "`send` takes no mesage"),
        (("read", "instance=laptop", "message_limit=few"), "it must be of the kind integer"),
        (("read", "instance=laptop", "details=1"), "it must be of the kind boolean"),
        (("read", "instance=a", "instance=b"), "instance is given 2 times"),
        (("reed",), "no tool is named 'reed'"),
        (("read", "laptop"), "'laptop' is no KEY=VALUE"),
    ):
        refused = call(environment, *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_what_is_approved_is_shown_first_and_nothing_is_approved_unseen(
    environment: dict[str, str], laptop: Driven
) -> None:
    asked = call(
        environment, "send", "instance=laptop", "message=[BASH:echo from-a-terminal]", "session=new", "--json"
    )
    (ask,) = json.loads(asked.stdout)["asks"]
    words = ["call", "reply", "instance=laptop", f"ask={ask['id']}", "answer=once"]
    unseen = call(environment, *words[1:])
    assert unseen.returncode == 1
    assert "nothing is approved unseen" in unseen.stderr
    for typed, code in (("n", 1), ("y", 0)):
        assert laptop.asks() == [ask["id"]]
        terminal = pexpect.spawn(str(SERVER_COMMAND), words, env=environment, encoding="utf-8", timeout=30)
        terminal.expect("echo from-a-terminal")
        terminal.expect(r"Answer 'once'\? \[y/N\]")
        terminal.sendline(typed)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == code
    assert laptop.asks() == []
