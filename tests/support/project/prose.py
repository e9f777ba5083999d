"""Check the prose of the documents: `python -m support.project.prose`.

One sentence a line, at most 120 characters, the glossary's words, and no constructions that have to be read twice.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from support.project.documents import ROOT, pages, prose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_LINE: Final = 120
_GLOSSARY: Final = ROOT / "docs" / "glossary.md"
GENERATED: Final = frozenset({"day.md"})
"""Written by a test, with what agents and people said."""
_CODE: Final = re.compile(r"(`+).+?\1")
_LINK_TARGET: Final = re.compile(r"\]\([^)]*\)")
_ABBREVIATION: Final = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|approx)\.")
_NUMBER: Final = re.compile(r"^ *(?:\d+\.|[-*]) +")
_NEXT_SENTENCE: Final = re.compile(r"[.!?][\"”)*]* +[\"“(*]*[A-Z]")
# A subject that comes last, and negations that have to be untangled.
BANNED: Final = {
    r"\bsuch of which\b": "say which",
    r"\bso is none\b": "say what each does",
    r"\bor stolen from\b": "say what may have happened",
    r"\bof each \w+ its own\b": "“each … has its own”",
    r"\blet none\b": "say whom it concerns",
    r"\bwhatever is not\b": "say what is",
    r"\bin order to\b": "“to”",
    r"\butili[sz]e": "“use”",
    r"\bleverag": "“use”",
}


def synonyms() -> dict[str, str]:
    """Return the words that the glossary's last column rules out, each with the word that it stands for."""
    rows = [
        line.strip("| ").split(" | ") for line in _GLOSSARY.read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    return {other: word for word, _, others in rows if word != "word" for other in others.split(", ")}


def faults(page: Path, text: str, instead: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the prose of a page, each with its line. `instead`: see `synonyms`."""
    banned = BANNED | {rf"\b{re.escape(other)}s?\b": f"“{word}”, see the glossary" for other, word in instead.items()}
    found = []
    for number, line in prose(text):
        if line.startswith(("    ", "#", "<")):
            continue
        said = _ABBREVIATION.sub("", _LINK_TARGET.sub("]", _CODE.sub("x", line)))
        problems = [f"“{match[0]}”: {better}" for match, better in _banned(said, banned)]
        if not line.startswith("|"):
            if len(line) > MAX_LINE:
                problems.append(f"{len(line)} characters, of at most {MAX_LINE}")
            if _NEXT_SENTENCE.search(_NUMBER.sub("", said)):
                problems.append("more than one sentence")
        found += [f"{page.name}:{number}: {problem}" for problem in problems]
    return found


def _banned(said: str, banned: Mapping[str, str]) -> Iterator[tuple[re.Match[str], str]]:
    for pattern, better in banned.items():
        for match in re.finditer(pattern, said, re.IGNORECASE):
            yield match, better


def checked() -> list[Path]:
    """Return the pages that are checked."""
    return [page for page in (*pages(), ROOT / "CONTRIBUTING.md") if page.name not in GENERATED]


def all_faults() -> list[str]:
    """Return what is wrong with all of them."""
    instead = synonyms()
    return [
        fault
        for page in checked()
        for fault in faults(page, page.read_text("utf-8"), {} if page == _GLOSSARY else instead)
    ]


def main() -> None:
    """Print what is wrong, and fail if anything is."""
    found = all_faults()
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
