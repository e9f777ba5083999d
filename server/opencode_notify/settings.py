"""How the settings of a kind are read: strictly, and without a word of theirs in what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from opencode_common.validation import describe
from opencode_notify.errors import BadOutlet

if TYPE_CHECKING:
    from collections.abc import Mapping


class SenderSettings(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    allow_private: bool = False
    """Private addresses and plain http are allowed."""


_Settings = TypeVar("_Settings", bound=SenderSettings)


def read(kind: type[_Settings], settings: Mapping[str, object]) -> _Settings:
    """Return the settings of a kind. Raises `BadOutlet`."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        raise BadOutlet(describe(error)) from None
