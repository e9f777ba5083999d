"""Release notes, taken from the changelog (Keep a Changelog)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import date

_HEADING: Final = re.compile(r"(?m)^## \[(?P<name>[^\]\n]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$\n*")
_UNRELEASED: Final = "Unreleased"


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """Return date and text of each section by its name, the newest first."""
    headings = list(_HEADING.finditer(changelog))
    ends = [heading.start() for heading in headings[1:]] + [len(changelog)]
    return {
        heading["name"]: (heading["date"], changelog[heading.end() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    }


def notes(changelog: str, version: str) -> str:
    """Return what is new in a version; where it has no section yet, what is unreleased, and that it is."""
    found = sections(changelog)
    if version in found:
        date, text = found[version]
        return f"# opencode-relay {version} ({date})\n\n{text}\n"
    text = found[_UNRELEASED][1]
    return f"# opencode-relay {version}, not released\n\n{text}\n"


def is_released(changelog: str, version: str) -> bool:
    """Return whether the changelog has a dated section with text for it."""
    date, text = sections(changelog).get(version, (None, ""))
    return date is not None and bool(text)


def with_release(changelog: str, version: str, today: date) -> str:
    """Return the changelog with what is unreleased under a heading for a version; the same if that is there."""
    if is_released(changelog, version):
        return changelog
    heading = f"## [{_UNRELEASED}]\n"
    return changelog.replace(heading, f"{heading}\n## [{version}] - {today.isoformat()}\n", 1)
