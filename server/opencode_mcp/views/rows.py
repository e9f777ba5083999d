"""The base of all structured results: what programs get. All text in them comes out cleaned."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

MAX_TEXT = 12_000
"""Characters of one answer, unless asked otherwise: what a chat's model can well take in."""
OWN_WORDS = 600
"""Of these, what is kept for our own words around the instance's."""


def _without_titles(schema: dict[str, Any]) -> None:
    """Leave out what repeats the field names: the schemas stand in every chat's context."""
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema["properties"].values():
        field.pop("title", None)
        field.pop("default", None)


class Row(BaseModel):
    """Base of structured results."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_without_titles)
