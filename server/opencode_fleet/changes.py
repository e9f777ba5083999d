"""What an agent changed, in the fleet's words. Strings come from other machines: bounded, not yet cleaned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that is not as it was. `patch` is a unified diff, empty where that was not told."""

    file: str
    status: str = ""
    """`added`, `modified` or `deleted`, as the agent calls it."""
    additions: int = 0
    deletions: int = 0
    patch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingTree:
    """A directory's state by its version control."""

    branch: str = ""
    """Empty where it is under none, or on no branch."""
    default_branch: str = ""
    files: tuple[FileChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """An entry of the list that an agent keeps of what it has to do."""

    text: str
    status: str = ""
