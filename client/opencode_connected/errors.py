"""What can go wrong, as exceptions that end the command with one line and a documented exit code.

    LauncherError             1  something is wrong
    ├── UsageError            2  an argument or a setting that cannot be
    ├── OpenCodeMissing       3  no usable OpenCode on this machine
    │   └── CannotExecute   126  OpenCode is there and cannot be executed; 127: what it is run by is not there
    ├── RelayRefused          4  the relay will not have us, and trying again would not help
    ├── NameTaken             5  a living instance holds the explicit name
    └── RegistryRefused       6  the registry directory cannot be used safely

While OpenCode runs in the foreground the exit code is OpenCode's own.
"""

from __future__ import annotations


class LauncherError(Exception):
    """One line for the person at the terminal: what is wrong, and the next step."""

    exit_code = 1


class UsageError(LauncherError):
    """An argument or a setting that cannot be; the line names it and the allowed values."""

    exit_code = 2


class OpenCodeMissing(LauncherError):
    """OpenCode is not installed, cannot be driven, or does not come up."""

    exit_code = 3

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class CannotExecute(OpenCodeMissing):
    """The system does not execute `binary`, or what it is run by does not. The exit code is a shell's."""

    def __init__(self, binary: str, why: OSError | str, *, is_missing: bool = False) -> None:
        """`is_missing`: what runs it is not there (an `OSError` tells that by itself)."""
        reason = why if isinstance(why, str) else why.strerror or str(why)
        super().__init__(
            f"{binary} cannot be executed: {reason}",
            f"run `{binary} --version` by hand: OpenCode is there, and may be damaged, of another kind of processor, "
            "or lack what its first line names",
        )
        self.exit_code = 127 if is_missing or isinstance(why, FileNotFoundError) else 126


class RelayRefused(LauncherError):
    """The relay refuses for a reason that lasts: a key, a host key, a forward that is not allowed."""

    exit_code = 4


class NameTaken(LauncherError):
    """A living instance holds the name that was asked for explicitly."""

    exit_code = 5


class RegistryRefused(LauncherError):
    """The registry directory belongs to somebody else, is open to others, or cannot be written."""

    exit_code = 6
