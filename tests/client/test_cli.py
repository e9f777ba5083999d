"""The command line: what is said to a person, and with which exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from client.launched import LAUNCHER
from opencode_connected.agents import opencode1
from opencode_connected.errors import UsageError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from client.launched import Machine


def test_help_names_every_setting_verb_and_exit_code(machine: Machine) -> None:
    text = machine.run("--help").stdout
    for word in (
        "RELAY_SSH_CMD",
        "RELAY_REGISTRY_DIR",
        "INSTANCE_NAME",
        "RELAY_PORTS",
        "RELAY_CLIENT",
        "RELAY_REMOTE",
        "directories",
        "open_below",
        "config.toml",
    ):
        assert word in text
    for verb in ("status", "sessions", "cleanup", "close", "doctor", "enroll", "service", "completion"):
        assert f"  {verb}" in text
    assert "..." not in text.replace("[COMMAND]...", ""), "no line of help is cut"
    assert all(f"{code} " in text for code in range(7))


def test_version_is_the_distributions(machine: Machine) -> None:
    assert version("opencode-relay") in machine.run("--version").stdout


def test_without_a_terminal_the_interface_is_refused_in_one_line(machine: Machine) -> None:
    ran = machine.run()
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "use --headless" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "--port", "4096"], 2, "--port cannot be passed on: the launcher chooses the port"),
        (["status", "--", "x"], 2, "passes nothing on to OpenCode"),
        (["--headless", "status"], 2, "are for starting OpenCode"),
        (["no-such-verb"], 2, "No such command"),
        (["sessions", "--limit", "0"], 2, "0 is not in the range"),
        (["enroll", "--proxy-command", "x"], 2, "--proxy-command is for --join"),
        (["enroll", "--join", "x", "--name", "y"], 2, "--name is for making the key"),
        (["enroll", "laptop"], 2, "'laptop' is no join line; did you mean --name?"),
        (["enroll", "ocr1:x"], 2, "the join line is not complete"),
        (["enroll", "--join", "ocr1:x", "y"], 2, "the join line is one word"),
        (["enroll", "--join", "ocr1:x", "--new-key"], 2, "--new-key comes first"),
        (["enroll", "--join", "x"], 2, "that is no join line"),
        (["service", "reinstall"], 2, "No such command"),
        (["service", "install", "--", "x"], 2, "passes nothing on to OpenCode"),
        (["enroll", "--name", "a b"], 2, "--name 'a b' cannot be"),
    ],
)
def test_a_wrong_command_line_is_explained(machine: Machine, arguments: list[str], code: int, said: str) -> None:
    ran = machine.run(*arguments)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_setting_ends_every_verb_with_exit_code_2(machine: Machine) -> None:
    for words in ("status", "sessions", "cleanup", "doctor", "enroll", "service status"):
        ran = machine.run(*words.split(), env={"RELAY_PORTS": "80"})
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert "RELAY_PORTS" in ran.stderr


def test_a_registry_directory_that_is_unsafe_ends_the_launch_with_exit_code_6(machine: Machine) -> None:
    machine.registry_dir.mkdir()
    machine.registry_dir.chmod(0o777)
    ran = machine.run("--headless")
    assert (ran.returncode, ran.stderr.count("\n")) == (6, 1)
    assert "chmod 700" in ran.stderr
    assert machine.states() == []


def test_a_directory_that_was_deleted_is_said(machine: Machine) -> None:
    script = f"cd {machine.project} && rmdir {machine.project} && exec {LAUNCHER} --headless"
    ran = subprocess.run(
        ["sh", "-c", script], env=machine.environment(), capture_output=True, text=True, check=False, timeout=30
    )
    assert ran.returncode == 2
    assert "does not exist any more" in ran.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_verbs(machine: Machine, shell: str) -> None:
    script = machine.run("completion", shell).stdout
    assert "_OPENCODE_CONNECTED_COMPLETE" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=30)
    variables = {
        "_OPENCODE_CONNECTED_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "opencode-connected do",
        "COMP_CWORD": "do" if shell == "fish" else "1",
    }
    assert "doctor" in machine.run(env=variables).stdout
    variables |= {"COMP_WORDS": "opencode-connected enroll --j", "COMP_CWORD": "--j" if shell == "fish" else "2"}
    assert "--join" in machine.run(env=variables).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port=1"],
        ["--port", "1"],
        ["--mdns"],
        ["--mdns=true"],
        ["--hostname", "0.0.0.0"],
        ["--hostname=::"],
        ["--hostname"],
        ["--mini"],
        ["-m", "x/y", "--port", "1"],
    ],
)
def test_what_would_move_opencodes_server_is_refused_in_every_spelling(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot be passed on"):
        opencode1.checked_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "passed_on"),
    [
        (["-m", "x/y", "--continue", "--cors", "https://a"], ["-m", "x/y", "--continue", "--cors", "https://a"]),
        (["--hostname=127.0.0.1", "-c"], ["-c"]),
        (["--hostname", "localhost", "-c"], ["-c"]),
        (["--prompt", "a", "--", "--port"], ["--prompt", "a", "--", "--port"]),
        (["--no-mdns"], ["--no-mdns"]),
    ],
)
def test_everything_else_is_passed_on(arguments: list[str], passed_on: list[str]) -> None:
    assert opencode1.checked_arguments(arguments) == passed_on


def test_starting_opencode_loads_nothing_that_takes_long() -> None:
    code = (
        "import sys, opencode_connected.cli, opencode_connected.launcher, opencode_connected.agents.owned, "
        "opencode_connected.agents.shared; print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not {"pydantic", "httpx", "rich", "psutil", "aiohttp"} & set(ran.stdout.split())


def test_text_from_elsewhere_cannot_act_on_a_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\n\u202ec\x9b1m\ud800d") == "a[2Jb c1md"
    assert printable("x" * 500) == "x" * 399 + "…"
    assert os.linesep not in printable("a\r\nb\u2028c")
