"""Words for what is wrong with a document that another program or person wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def describe(error: ValidationError) -> str:
    """Say in one line at which key the first problem is and what it is, without quoting the input."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    told = first["msg"].removeprefix("Value error, ")
    return f"{where}: {told}" if where else told
