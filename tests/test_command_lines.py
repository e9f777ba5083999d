"""The rules of docs/command-lines.md, over all commands of the four programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import pytest
from click.testing import CliRunner

from opencode_connected.cli import cli as connected
from opencode_gateway.cli import COMMANDS
from opencode_gateway.cli import cli as gateway
from opencode_mcp.cli import cli as mcp
from opencode_relay.cli import cli as relay

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = {
    "opencode-connected": connected,
    "opencode-gateway": gateway,
    "opencode-mcp": mcp,
    "opencode-relay": relay,
}
TELLS = re.compile(r"list|known|status|sessions|clients|refusals|doctor|tools|check|passkeys|rules")
"""Commands that tell how something is."""
CHANGES = "Change nothing; "
WITHOUT = """
import sys
from importlib.metadata import entry_points
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = {words!r}
(program,) = entry_points(group="console_scripts", name=sys.argv[0])
program.load()()
"""
"""A program, in a Python where one package is not installed."""
RULES = Path(__file__).parents[1] / "docs" / "command-lines.md"


class Found(NamedTuple):
    """A command, by the words that one types for it."""

    words: tuple[str, ...]
    command: click.Command

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def options(self) -> dict[str, click.Option]:
        return {name: each for each in self.command.params if isinstance(each, click.Option) for name in each.opts}


def commands(words: tuple[str, ...], command: click.Command) -> Iterator[Found]:
    """Yield a command and all below it."""
    yield Found(words, command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands((*words, name), below)


ALL = [found for name, program in PROGRAMS.items() for found in commands((name,), program)]
LEAVES = [found for found in ALL if not isinstance(found.command, click.Group)]


def run(program: str | Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("found", ALL, ids=str)
def test_a_command_tells_what_it_does_and_what_each_option_is_for(found: Found) -> None:
    told = {}
    for flag in ("-h", "--help"):
        asked = CliRunner().invoke(PROGRAMS[found.words[0]], [*found.words[1:], flag], prog_name=found.words[0])
        assert (asked.exit_code, asked.stderr) == (0, "")
        told[flag] = asked.stdout
    assert told["-h"] == told["--help"]
    assert told["-h"].startswith(f"Usage: {found}")
    assert re.search(r"\n\n  [A-Z][^\n]+", told["-h"]), "it says in a sentence what it does"
    assert "..." not in re.sub(r"\]\.\.\.|ARGS\]\.\.\.", "", told["-h"]), "no line is cut"
    for name, option in found.options.items():
        assert (option.help or "").endswith((".", "]")), f"{name} says in a sentence what it is for"
    for parameter in found.command.params:
        if isinstance(parameter, click.Argument):
            shown = parameter.make_metavar(click.Context(found.command))
            assert shown.upper() == shown or shown.startswith("{"), "what one has to give is in capitals"


@pytest.mark.parametrize("found", LEAVES, ids=str)
def test_json_and_check_are_the_same_everywhere(found: Found) -> None:
    options = found.options
    if TELLS.fullmatch(found.words[-1]):
        assert "--json" in options
    if "--json" in options:
        assert (options["--json"].name, options["--json"].is_flag) == ("as_json", True)
        assert (options["--json"].help or "").startswith("Print one JSON document instead of text.")
    if "--check" in options:
        assert (options["--check"].help or "").startswith(CHANGES)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_tells_its_version_and_refuses_what_it_does_not_know_in_one_line(program: str) -> None:
    told = run(program, "--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"{program} {version('opencode-relay')}\n", "")
    for words in (("no-such-command",), ("--no-such-option",)):
        refused = run(program, *words)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert refused.stderr.startswith(f"{program}: No such ")
        assert f"`{program} --help`" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("opencode-connected", "status"),
        ("opencode-gateway", "--config", "gateway.json", "users", "list"),
        ("opencode-mcp", "call", "instances"),
        ("opencode-relay", "--etc", "etc", "clients"),
    ],
    ids=lambda words: words[0],
)
def test_bad_settings_are_one_line_and_exit_code_two(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.json").write_text("{")
    refused = run(*words, RELAY_PORTS="80", TRANSPORT="pigeon")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
    assert refused.stderr.startswith(f"{words[0]}: ")


@pytest.mark.parametrize(
    ("package", "words", "remedy"),
    [
        ("psutil", ("opencode-connected", "service", "status"), "."),
        ("psutil", ("opencode-relay", "doctor"), "."),
        ("mcp", ("opencode-mcp", "call", "instances"), "'.[server]'"),
        ("jinja2", ("opencode-mcp", "--page"), "'.[server]'"),
        ("argon2", ("opencode-gateway", "users", "list"), "'.[gateway]'"),
        ("fastmcp", ("opencode-gateway", "serve"), "'.[gateway]'"),
    ],
)
def test_a_package_that_is_missing_is_one_line_that_says_what_to_install(
    package: str, words: tuple[str, ...], remedy: str
) -> None:
    ended = run(sys.executable, "-c", WITHOUT.format(package=package, words=list(words)))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert ended.stderr.startswith(f"{words[0]}: {package} is not installed")
    assert ended.stderr.endswith(f" pipx install --force {remedy}\n")


def documents() -> list[tuple[str, ...]]:
    """Return what can be asked for JSON on any machine."""
    of_gateway = ("opencode-gateway", "--config", "gateway.json")
    return [
        *[("opencode-connected", *words.split()) for words in ("status", "sessions", "cleanup", "doctor", "enroll")],
        *[
            (*of_gateway, *words.split())
            for words in (
                "check",
                "clients known",
                "clients list",
                "doctor",
                "notify list",
                "notify status",
                "refusals",
                "sessions list",
                "tokens list",
                "users list",
                "users passkeys ann",
            )
        ],
        *[("opencode-mcp", *words.split()) for words in ("tools", "call instances", "call inbox")],
    ]


@pytest.mark.parametrize("words", documents(), ids=" ".join)
def test_with_json_there_is_one_document_on_standard_output_and_lists_are_arrays(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"public_url": "https://relay.example.org", "data_dir": str(tmp_path)}
    (tmp_path / "gateway.json").write_text(json.dumps(settings))
    for name, place in (("HOME", "home"), ("RELAY_REGISTRY_DIR", "registry"), ("XDG_CONFIG_HOME", "config")):
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.delenv("RELAY_SSH_CMD", raising=False)
    told = CliRunner().invoke(PROGRAMS[words[0]], [*words[1:], "--json"], prog_name=words[0], obj=None)
    assert told.exit_code in (0, 1), told.stderr
    document = json.loads(told.stdout)
    assert isinstance(document, list if {*words} & {"list", "known", "refusals", "tools", "passkeys"} else dict)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_gateway_says_of_a_command_that_it_did_not_load_what_the_command_says(name: str) -> None:
    command = gateway.get_command(click.Context(gateway), name)
    assert command is not None
    assert COMMANDS[name] == command.get_short_help_str(1_000)


def test_the_rules_name_every_program() -> None:
    rules = RULES.read_text()
    assert [name for name in PROGRAMS if name not in rules] == []
