"""What clients may be called: names by which none can pose as another, as instances are named after their client."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Final

from opencode_relay.errors import EnrolmentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", re.ASCII)
_MAX: Final = 32


def check_names(names: Collection[str], enrolled: Collection[str]) -> None:
    """See that these names may stand beside each other. `enrolled`: those of now, which are not to be renamed.

    Raises:
        EnrolmentError: one is not allowed, or begins with another, whatever the case; with a name that would do.
    """
    previous = ""
    for name in sorted(names, key=str.lower):
        if not NAME.fullmatch(name):
            raise EnrolmentError(
                f"the client name {name[:40]!a} is not allowed: 1 to 32 of A-Z a-z 0-9 _ -, "
                "beginning with a letter or digit"
            )
        # Sorted, a prefix stands right before something that begins with it.
        if previous and name.lower().startswith(previous.lower()):
            raise EnrolmentError(_alike(previous, name, names, enrolled))
        previous = name


def _alike(shorter: str, longer: str, names: Collection[str], enrolled: Collection[str]) -> str:
    """Return what is wrong with two names, and what to do that renames nobody who is enrolled."""
    if shorter.lower() == longer.lower():
        problem = "the same name, as case does not count"
    else:
        problem = f"{longer} begins with {shorter}"
    newer = shorter if longer in enrolled and shorter not in enrolled else longer
    older = longer if newer == shorter else shorter
    better = _free(_candidates(shorter, longer if newer == longer else ""), [*names, *enrolled], instead_of=newer)
    return (
        f"clients {shorter} and {longer}: {problem}, so that one could pose as the other. Leave {older} as it is, "
        f"run `opencode-connected enroll --name {better}` on {newer}, and put what it prints in place of its entry"
    )


def _candidates(shorter: str, longer: str) -> Iterator[str]:
    """Yield names that say the same the other way round: 2-lap for lap-2."""
    if rest := longer[len(shorter) :].strip("-_"):
        yield f"{rest}-{shorter}"
    yield f"new-{shorter}"
    for first in (*range(2, 10), *string.ascii_lowercase):
        yield f"{first}-{shorter}"


def _free(candidates: Iterable[str], taken: Iterable[str], *, instead_of: str) -> str:
    """Return the first of `candidates` that begins with none of `taken`, nor one of them with it; NAME for none."""
    others = [name.lower() for name in taken if name != instead_of]
    for candidate in candidates:
        name = candidate[:_MAX]
        if not any(name.lower().startswith(other) or other.startswith(name.lower()) for other in others):
            return name
    return "NAME"
