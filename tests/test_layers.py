"""Dependencies point down only, as the table in docs/architecture.md has it."""

from __future__ import annotations

import ast
import re
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


def test_the_gateway_stands_on_the_ground_alone() -> None:
    assert imported(ROOT / "server" / "opencode_gateway") == {"opencode_common"}


def test_the_launcher_imports_nothing_of_the_server_s() -> None:
    assert imported(ROOT / "client" / "opencode_connected") == set()
