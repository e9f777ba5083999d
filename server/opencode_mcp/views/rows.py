"""The base of all structured results: what programs get. All text in them comes out cleaned."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

MAX_TEXT = 12_000
"""Characters of one answer, unless asked otherwise: what a chat's model can well take in."""
OWN_WORDS = 600
"""Of these, what is kept for our own words around the instance's."""


def without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an object's schema without what repeats its fields' names: it stands in every chat's context."""
    fields = {
        name: {key: value for key, value in field.items() if key not in {"title", "default"}}
        for name, field in schema["properties"].items()
    }
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": fields}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with each row's own in place of a reference to it: shorter, as hardly any stands twice."""
    rows = schema.get("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(each) for each in node]
        if not isinstance(node, dict):
            return node
        if reference := node.get("$ref"):
            return inline(rows[reference.removeprefix("#/$defs/")])
        return {key: inline(value) for key, value in node.items() if key != "$defs"}

    found: dict[str, Any] = inline(schema)
    return found


def _small(schema: dict[str, Any]) -> None:
    schema.pop("description", None)
    small = without_titles(schema)
    schema.clear()
    schema.update(small)


def _smaller(schema: dict[str, Any]) -> None:
    _small(schema)
    schema.pop("required", None)


class Result(BaseModel):
    """Base of a tool's whole structured result."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_small)


class Row(BaseModel):
    """Base of what results list. To be short, its schema does not say which fields are always there."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_smaller)
