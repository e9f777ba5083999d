"""Dependencies point down only, as the table in docs/architecture.md has it."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def floors() -> list[list[str]]:
    """Return the server's packages, the top floor first."""
    overview = (ROOT / "docs" / "architecture.md").read_text().partition("\n## ")[0]
    rows = [re.findall(r"`server/(\w+)`", line.split("|")[2]) for line in overview.splitlines() if "| `" in line]
    return [row for row in rows if row]


def packages() -> list[str]:
    """Return all packages that the server is made of."""
    return sorted(path.parent.name for path in (ROOT / "server").glob("*/__init__.py"))


def imported(package: Path) -> set[str]:
    """Return which of our packages the modules of `package` import, itself not counted."""
    found = set()
    for module in package.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are absolute here"
                found.add((node.module or "").partition(".")[0])
    return {name for name in found if name.startswith("opencode_")} - {package.name}


def test_every_package_of_the_server_stands_on_one_floor() -> None:
    assert sorted(name for floor in floors() for name in floor) == packages()


@pytest.mark.parametrize("package", packages())
def test_a_package_imports_only_from_the_floors_below_its_own(package: str) -> None:
    own = next(index for index, floor in enumerate(floors()) if package in floor)
    below = {name for floor in floors()[own + 1 :] for name in floor}
    assert imported(ROOT / "server" / package) <= below


def test_the_gateway_knows_nothing_of_the_fleet() -> None:
    assert imported(ROOT / "server" / "opencode_gateway") == {"opencode_common", "opencode_notify", "opencode_pages"}


def modules(package: Path) -> dict[str, Path]:
    """Return the modules of a package by their names, packages within it not counted: they are empty."""
    found = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    return {name: path for name, path in found.items() if path.name != "__init__.py"}


def needed(path: Path, known: dict[str, Path]) -> set[str]:
    """Return which of `known` a module imports when it runs, at once or later."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return found & known.keys()


def gateway() -> dict[str, set[str]]:
    """Return what each module of the gateway imports of it, by short names."""
    known = modules(ROOT / "server" / "opencode_gateway")
    return {
        name.removeprefix("opencode_gateway."): {
            each.removeprefix("opencode_gateway.") for each in needed(path, known)
        }
        for name, path in known.items()
    }


def test_no_modules_of_the_gateway_go_round_in_a_circle() -> None:
    graph = gateway()
    assert "oauth.grants" in graph["oauth.provider"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


ROOMS = {
    "people": set(),
    "sign_in": {"people"},
    "oauth": {"sign_in", "people", "pages"},
    "pages": {"oauth", "sign_in", "people"},
    "calls": set(),
    "door": {"calls"},
}
"""Of the gateway: which other rooms each may know. What is in no room is ground for all, or puts rooms together."""
OVER_ROOMS = {"app", "authentication", "cli", "service"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_gateway_knows_only_those_that_it_may(room: str) -> None:
    for module, imports in gateway().items():
        if module.partition(".")[0] == room:
            others = {
                each for each in imports if each.partition(".")[0] in {*ROOMS, *OVER_ROOMS, "commands"} - {room}
            }
            strangers = {each for each in others if not {each, each.partition(".")[0]} & ROOMS[room]}
            assert not strangers, module


def test_the_launcher_imports_nothing_of_the_server_s() -> None:
    assert imported(ROOT / "client" / "opencode_connected") == set()


OVERVIEWS = ["client/opencode_connected", *(f"server/{name}" for name in packages() if name != "opencode_common")]
"""Packages whose modules docs/architecture.md lists."""


@pytest.mark.parametrize("package", OVERVIEWS)
def test_the_table_of_a_package_has_all_its_modules_and_no_others(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    [section] = re.findall(rf"^## [^\n]*`{package}`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    named = {name.rstrip("/") for row in rows for cell in row[:-1] for name in re.findall(r"`([\w/]+)`", cell)}
    there = {path.relative_to(ROOT / package).with_suffix("").as_posix() for path in (ROOT / package).rglob("*.py")}
    rooms = {path.rpartition("/")[0] for path in there if "/" in path} | {"templates", "static"}
    assert named <= there | rooms
    listed = {name.partition("/")[0] for name in named}
    assert {path.partition("/")[0] for path in there} - {"__init__", "__main__"} <= listed
