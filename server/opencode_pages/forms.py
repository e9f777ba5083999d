"""Reads the fields of a form that anybody may have sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

Fields = Callable[[str], list[str]]
"""Gives all values of a field, none if it is not there."""
TOO_LONG: Final = 413


class BadForm(Exception):
    """What was sent cannot be taken; `status` is for the answer."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


async def read_values(request: Request, max_bytes: int, max_fields: int) -> dict[str, list[str]]:
    """Return all values of a form's fields, by name.

    Raises:
        BadForm: it is none, or too large a one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadForm(415)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise BadForm(TOO_LONG)
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=max_fields)
    except (ValueError, ClientDisconnect):
        raise BadForm(400) from None
