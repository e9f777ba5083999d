"""What the roles say about themselves is what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.project.role_readmes import drifted, roles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

each_role = pytest.mark.parametrize("role", roles(), ids=lambda role: role.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options(role: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def test_the_readmes_are_what_the_argument_specs_say() -> None:
    assert drifted() == []


@each_role
def test_each_default_is_in_the_specs_and_each_default_of_the_specs_is_real(role: Path) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}

    assert load(role / "defaults/main.yml") == specified


@each_role
def test_every_variable_has_a_type_and_a_description(role: Path) -> None:
    for name, option in walk(options(role)):
        assert option.get("type"), name
        assert option.get("description"), name
        assert option["type"] != "list" or option.get("elements"), name


@each_role
def test_public_variables_begin_with_relay_and_internal_ones_with_an_underscore(role: Path) -> None:
    internal = role / "vars/main.yml"

    assert all(name.startswith("relay_") for name in options(role))
    assert all(name.startswith("__relay_") for name in (load(internal) if internal.exists() else {}))


def walk(specs: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in specs.items():
        yield name, option
        yield from walk(option.get("options", {}))
