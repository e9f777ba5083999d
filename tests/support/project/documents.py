"""README and docs as others read them: their headings, links and blocks of code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[3]
SHELLS: Final = frozenset({"sh", "bash", "console", "shell"})
_FENCE: Final = re.compile(r"^ *(?P<fence>```+|~~~+)(?P<info>.*)$")
_COMMENT: Final = re.compile(r"^ *<!-- (?P<text>.*) -->$")
_INLINE_CODE: Final = re.compile(r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)")
_LINK: Final = re.compile(r"(?P<before>\]\(|\b(?:src|href)=\")(?P<target>[^)\s\"]+)")
_HEADING: Final = re.compile(r"^#{1,6} +(?P<text>.*?)(?: +#+)?$")
_NOT_IN_ANCHORS: Final = re.compile(r"[^\w\- ]")
_LINK_OF_HEADING: Final = re.compile(r"\[(?P<text>[^\]]*)\]\([^)]*\)")


class _Part(Enum):
    PROSE = 0
    OPENING = 1
    CODE = 2


@dataclass(frozen=True)
class Block:
    """A block of code."""

    line: int
    """Where it begins, from 1."""
    language: str
    mark: str
    """What the comment right before it says, as in `<!-- run by tests/… -->`."""


def pages() -> list[Path]:
    """Return README and docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def prose(text: str) -> list[tuple[int, str]]:
    """Return the lines outside of blocks of code, with their numbers from 1."""
    return [(number, line) for number, line, part in _lines(text) if part is _Part.PROSE]


def _lines(text: str) -> Iterator[tuple[int, str, _Part]]:
    """Yield all lines with their numbers, and what each is part of."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.match(line)
        if fence:
            yield number, line, _Part.CODE
            if match and match["fence"].startswith(fence) and not match["info"].strip():
                fence = ""
        elif match:
            fence = match["fence"]
            yield number, line, _Part.OPENING
        else:
            yield number, line, _Part.PROSE


def blocks(text: str) -> list[Block]:
    """Return the blocks of code, in order."""
    found = []
    mark = ""
    for number, line, part in _lines(text):
        if part is _Part.OPENING:
            language, *_ = line.strip().strip("`~").split() or [""]
            found.append(Block(number, language, mark))
        comment = _COMMENT.match(line) if part is _Part.PROSE else None
        mark = comment["text"] if comment else ""
    return found


def links(text: str) -> list[tuple[int, str]]:
    """Return the targets of all links and pictures in prose, with their lines."""
    return [
        (number, found["target"])
        for number, line in prose(text)
        for found in _LINK.finditer(_INLINE_CODE.sub("", line))
    ]


def with_links(text: str, change: Callable[[str], str]) -> str:
    """Return the text with each target of a link in prose changed."""

    def changed(line: str) -> str:
        code = [range(*found.span()) for found in _INLINE_CODE.finditer(line)]
        return _LINK.sub(
            lambda found: (
                found[0] if any(found.start() in part for part in code) else found["before"] + change(found["target"])
            ),
            line,
        )

    return "".join(f"{changed(line) if part is _Part.PROSE else line}\n" for _, line, part in _lines(text))


def anchors(text: str) -> set[str]:
    """Return what can follow `#` in a link to this text, as GitHub and the site make it."""
    found: set[str] = set()
    for _, line in prose(text):
        if heading := _HEADING.match(line):
            words = _LINK_OF_HEADING.sub(r"\g<text>", heading["text"]).replace("`", "").replace("*", "").strip()
            plain = anchor = _NOT_IN_ANCHORS.sub("", words.lower()).replace(" ", "-")
            again = 0
            while anchor in found:
                again += 1
                anchor = f"{plain}-{again}"
            found.add(anchor)
    return found


def is_elsewhere(target: str) -> bool:
    """Return whether a link leads to another site."""
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def broken(page: Path, text: str) -> list[str]:
    """Return what is wrong with the links of a page within this repository, each with its line."""
    found = []
    for line, target in links(text):
        if is_elsewhere(target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve()
        if not to.is_relative_to(ROOT) or not to.exists():
            found.append(f"{page.name}:{line}: {target} leads to no file")
        elif (
            anchor
            and (not path or to.suffix == ".md")
            and anchor not in anchors(to.read_text("utf-8") if path else text)
        ):
            found.append(f"{page.name}:{line}: {target} leads to no heading")
    return found


def unproven(page: Path, text: str) -> list[str]:
    """Return the shell blocks of a page that say neither which test runs them nor why none does.

    The line before the block is `<!-- run by tests/… -->`, with one file or more, or `<!-- not run: REASON -->`.
    """
    found = []
    for block in blocks(text):
        if block.language not in SHELLS:
            continue
        where = f"{page.name}:{block.line}"
        if block.mark.startswith("run by "):
            tests = block.mark.removeprefix("run by ").replace(",", " ").split()
            found += [f"{where}: there is no {test}" for test in tests if not (ROOT / test).is_file()]
        elif not re.match(r"not run: .", block.mark):
            found.append(f"{where}: no comment before the block says what runs it, or why nothing does")
    return found
