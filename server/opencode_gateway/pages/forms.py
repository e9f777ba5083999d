"""Reads the fields of a form that anybody may have sent, and says in plain words when it cannot be taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect

from opencode_pages.rendering import problem_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

_MAX_BODY: Final = 32 * 1024
_MAX_FIELDS: Final = 20


class Answered(Exception):
    """Ends the handling of a request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def read_fields(request: Request) -> Callable[[str], str]:
    """Return what gives a field's first value, or an empty one.

    Raises:
        Answered: it is no form, or too large a one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Answered(_not_understood(415))
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                raise Answered(start_again("This form is too long", "No name or password is that long.", status=413))
        values = parse_qs(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except (ValueError, ClientDisconnect):
        raise Answered(_not_understood(400)) from None
    return lambda name: values.get(name, [""])[0]


def start_again(title: str, reason: str, *, status: int = 400) -> Response:
    """Return a page about a step that cannot be repeated here."""
    return problem_page(title, reason, "Start again from your chat client: connect this relay anew.", status=status)


def foreign() -> Response:
    """Return a page about a form that we did not give this browser for this request, or too long ago."""
    return start_again(
        "This form does not belong to this page", "It came from elsewhere, or lay open for too long.", status=403
    )


def of_another(client: str, user: str) -> Response:
    """Return a page about a client that was let in without a window for whoever connected it before."""
    return problem_page(
        "This client is not yours yet",
        f"Another person connected {client} from this browser before, and can do so again. For {user} it is new: "
        "the owner opens a window on the relay, and you connect anew from your chat.",
        command="sudo opencode-gateway clients allow",
        status=403,
    )


def _not_understood(status: int) -> Response:
    return start_again("This form is not complete", "The gateway did not understand it.", status=status)
