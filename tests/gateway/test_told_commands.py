"""Commands that messages name: they are there, and are written as the owner has to type them."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

import opencode_gateway
from opencode_gateway.cli import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(opencode_gateway.__file__).parent
AS_ROOT = ("opencode-gateway", "systemctl", "journalctl", "docker", "apt-get", "chmod", "chown")
"""On a provisioned relay each of these needs root."""


def told() -> Iterator[str]:
    """Yield each text of the program that is no docstring, without what is filled in."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in parts | documented:
                continue
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(value.value) if isinstance(value, ast.Constant) else "" for value in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def commands() -> set[str]:
    return {command for text in told() for command in re.findall(r"`((?:sudo )?[a-z-]+(?: [^`]*)?)`", text)}


def test_a_command_that_needs_root_is_told_with_sudo() -> None:
    assert [command for command in commands() if command.split()[0] in AS_ROOT] == []


def test_a_command_of_the_gateway_that_is_told_is_there() -> None:
    ours = [command.split()[2:] for command in commands() if command.startswith("sudo opencode-gateway ")]

    assert len(ours) > 10
    for verb, *rest in ours:
        assert verb in COMMANDS
        command = getattr(import_module(f"opencode_gateway.commands.{verb}"), verb)
        if isinstance(command, click.Group) and rest:
            assert rest[0] in command.commands
