"""What the shapes of all agents' answers are made of: types that let nothing odd through, whatever was answered."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MILLISECONDS: Final = 1000.0
_MAX_NUMBER: Final = 1e15
"""Beyond every time in milliseconds; infinity and NaN, which JSON readers let through, are not below it."""


def _number(value: object) -> float:
    # An integer of any length may come: it is compared, not converted.
    return value if isinstance(value, int | float) and abs(value) < _MAX_NUMBER else 0.0


def _number_or_none(value: object) -> float | None:
    return _number(value) if isinstance(value, int | float) else None


# Identifiers go into URLs: nothing but what OpenCode's own look like.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
Text = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")]
# What is kept in memory of every session and shown on one line.
Short = Annotated[str, BeforeValidator(lambda value: value[:1000] if isinstance(value, str) else "")]
Mapping = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
Number = Annotated[float, BeforeValidator(_number)]
OptionalNumber = Annotated[float | None, BeforeValidator(_number_or_none)]
Strings = Annotated[
    list[str], BeforeValidator(lambda v: [s for s in v if isinstance(s, str)] if isinstance(v, list) else [])
]


class Wire(BaseModel):
    """Base: frozen, tolerant of more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class _Tokens(Wire):
    """What went to the model and came from it, without what was cached."""

    input: Number = 0
    output: Number = 0
    reasoning: Number = 0

    @property
    def total(self) -> int:
        return int(self.input + self.output + self.reasoning)


Tokens = Annotated[_Tokens, BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
NO_TOKENS: Final = _Tokens()


def searching(title: str) -> dict[str, str]:
    """Return the query's part that finds sessions by their titles."""
    return {"search": title} if title else {}


class OfferedAgent(Wire):
    """An agent (mode), as a list of them tells it."""

    mode: Short = "primary"
    hidden: bool = False

    @property
    def is_for_people(self) -> bool:
        """Whether a person may have a session go on with it: subagents and OpenCode's own helpers are none."""
        return self.mode != "subagent" and not self.hidden


def telling_argument(arguments: dict[str, Any]) -> str:
    """Return the argument of a tool call that says most of what it is about."""
    for key in ("command", "filePath", "path", "pattern", "url", "description", "query"):
        value = arguments.get(key)
        if isinstance(value, str) and value:
            return value
    return ""
