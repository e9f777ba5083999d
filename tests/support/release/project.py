"""The project's version and what else names it. pyproject.toml is the one place; the rest is checked against it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from support.release.notes import with_release

if TYPE_CHECKING:
    from datetime import date

ROOT: Final = Path(__file__).parents[3]
_PLAIN_VERSION: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", re.ASCII)
"""What both PyPI and Galaxy take."""


class NotReady(Exception):
    """The tree cannot be released as it is; the message says what to do."""


def metadata(root: Path = ROOT) -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def version(root: Path = ROOT) -> str:
    """Return the one version; galaxy.yml, which can name no other file, must repeat it."""
    found = str(metadata(root)["version"])
    repeated = yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    if found != repeated:
        raise NotReady(
            f"pyproject.toml has version {found}, galaxy.yml has {repeated}: run `make prepare-release TO={found}`."
        )
    return found


def prepare(to: str, today: date, root: Path = ROOT) -> None:
    """Write a new version wherever it stands, and date what is unreleased in the changelog."""
    if not _PLAIN_VERSION.fullmatch(to):
        raise NotReady(f"{to!r} is no version: it is three numbers, as 1.2.3.")
    changelog = root / "CHANGELOG.md"
    # First what may be refused, so that nothing is half done.
    text = with_release(changelog.read_text(encoding="utf-8"), to, today)
    _replace(root / "pyproject.toml", r'(?m)^version = ".*"$', f'version = "{to}"')
    _replace(root / "galaxy.yml", r"(?m)^version: .*$", f"version: {to}")
    changelog.write_text(text, encoding="utf-8")


def _replace(path: Path, pattern: str, line: str) -> None:
    text, count = re.subn(pattern, line, path.read_text(encoding="utf-8"))
    if count != 1:
        raise NotReady(f"{path.name} has {count} lines with a version: it must have one.")
    path.write_text(text, encoding="utf-8")
