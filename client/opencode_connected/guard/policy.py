"""What the owner of this machine lets through from afar: rights and directories."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

MAX_DIRECTORY = 4096
"""Characters of a directory's path; no system allows longer ones."""


class Right(StrEnum):
    """What may be done from afar; `remote` in config.toml is a set of these words."""

    OBSERVE = "observe"
    DRIVE = "drive"
    APPROVE = "approve"
    ALWAYS = "always"
    COMMANDS_WITH_SHELL = "commands-with-shell"


DEFAULT_RIGHTS: frozenset[Right] = frozenset({Right.OBSERVE, Right.DRIVE, Right.APPROVE})
"""What is let through where config.toml says nothing."""


@dataclass(frozen=True)
class OpenedDirectory:
    """A directory that may be seen from afar.

    Attributes:
        path: absolute.
        name: what the launcher would register it as; None for a root of config.toml.
        opened: it was opened, and stands for itself; else it stands for everything below it too.
        is_fixed: it was opened from afar, and stands for this very path, wherever that leads by now. Who works in a
            directory can put a link into its place; what was opened from afar must not move with it.

    """

    path: str
    name: str | None
    opened: bool
    is_fixed: bool = False


@dataclass(frozen=True)
class Policy:
    """Rights and directories as they are now."""

    rights: frozenset[Right]
    directories: tuple[OpenedDirectory, ...]

    def allows(self, directory: str) -> bool:
        """Tell whether `directory`, as the agent or somebody afar writes it, may be seen.

        Links are followed before it is compared, so the file system is asked.
        """
        real = real_path(directory)
        return real is not None and any(_covers(entry, real) for entry in self.directories)


def real_path(directory: str) -> str | None:
    """Return the directory that is meant, or None where agent and system could mean different ones."""
    # An agent takes `..` from the text, the system from where a link leads: both are right, for another directory.
    plain = directory.rstrip("/") or "/"
    is_rooted = directory.startswith("/") and not directory.startswith("//")
    if len(directory) > MAX_DIRECTORY or not is_rooted or os.path.normpath(plain) != plain:
        return None
    try:
        return os.path.realpath(directory)
    except (OSError, ValueError):
        return None


def _covers(entry: OpenedDirectory, real: str) -> bool:
    root = entry.path if entry.is_fixed else real_path(entry.path)
    if root is None:
        return False
    return real == root or (not entry.opened and real.startswith(root.rstrip("/") + "/"))
