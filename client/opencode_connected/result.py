"""What a command comes to: a model that is printed as text for people or as JSON for programs.

The JSON is pinned: its schemas are golden files in `tests/client/golden/`. A change that breaks a reader takes a new
`schema` number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from rich.console import RenderableType


class CommandResult(BaseModel, ABC):
    """A command's result; what comes from elsewhere was made printable when it was read."""

    model_config = ConfigDict(serialize_by_alias=True)

    schema_number: Literal[1] = Field(default=1, serialization_alias="schema")

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if something is wrong."""
        return 0

    @abstractmethod
    def as_text(self) -> list[RenderableType]:
        """Return what a person sees."""


def show(result: CommandResult, *, as_json: bool) -> None:
    """Print `result` to stdout."""
    if as_json:
        print(result.model_dump_json())
        return
    from rich.console import Console  # noqa: PLC0415 - JSON needs none of it

    console = Console(highlight=False, markup=False, emoji=False)
    for part in result.as_text():
        # Lines are not cut to a terminal's width that a pipe does not have.
        console.print(part, soft_wrap=True)
