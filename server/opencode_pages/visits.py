"""What all pages do first and last: who looks, whose form it is, and what stands above every page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from opencode_pages.parts import NotThere, Unavailable
from opencode_pages.paths import INBOX_PATH, LEAVE_PATH
from opencode_pages.rendering import TEMPLATES, problem_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from opencode_pages.forms import Fields
    from opencode_pages.parts import Capability, Door, Visitor
    from opencode_pages.rendering import Templates

    Handler = Callable[[Request], Awaitable[Response]]

LEAVE: Final = "leave"
"""The purpose of the form that ends a visit."""
_TO_INBOX: Final = (INBOX_PATH, "To your inbox")
_log = logging.getLogger(__name__)


class Answered(Exception):
    """Ends the handling of a request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Visits:
    """Lets visitors in by the door, and makes pages for them.

    Args:
        door: who may come in.
        has_account: whether they have passkeys of their own here.
        templates: of the pages.
    """

    def __init__(self, door: Door, *, has_account: bool = False, templates: Templates = TEMPLATES) -> None:
        self._door = door
        self._has_account = has_account
        self._templates = templates

    async def visitor(self, request: Request, *needed: Capability) -> Visitor:
        """Return who looks, who has one of the capabilities that are needed; else answer otherwise."""
        visitor = await self._door.visitor(request)
        if isinstance(visitor, Response):
            raise Answered(visitor)
        if needed and not visitor.may.intersection(needed):
            named = " or ".join(f"“{each}”" for each in needed)
            raise Answered(
                problem_page(
                    "You may not see this",
                    f"{visitor.name} has not the capability {named} here. Ask the owner of this relay.",
                    status=403,
                )
            )
        return visitor

    async def fields(self, request: Request, visitor: Visitor, purpose: str) -> Fields:
        """Return the fields of a form that we gave this session; else answer what is wrong with it."""
        fields = await self._door.fields(request, visitor, purpose)
        if isinstance(fields, Response):
            raise Answered(fields)
        return fields

    def token(self, request: Request, visitor: Visitor, purpose: str) -> str:
        """See `Door.token`."""
        return self._door.token(request, visitor, purpose)

    def page(
        self, request: Request, visitor: Visitor, template: str, values: dict[str, object], *, status: int = 200
    ) -> Response:
        """Return a page for this visitor."""
        leaving = self._door.token(request, visitor, LEAVE)
        every = {"visitor": visitor, "leaving": leaving, "has_account": self._has_account}
        return self._templates.page(template, {**every, **values}, status=status, has_script=True)

    async def leave(self, request: Request) -> Response:
        """End the session of who asks for that by our form."""
        visitor = await self.visitor(request)
        await self.fields(request, visitor, LEAVE)
        return await self._door.leave(request, visitor)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(LEAVE_PATH, answering(self.leave), methods=["POST"])]


def redirect(location: str) -> Response:
    """Lead a browser on."""
    # 303: a browser must not send the form on.
    return RedirectResponse(location, 303, {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})


def answering(handle: Handler) -> Handler:
    """Return a handler that answers what every page can run into."""

    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except Answered as answered:
            return answered.response
        except NotThere:
            return problem_page(
                "This is not there",
                "There is no such ask, or not any more: what was settled is forgotten after a while.",
                onward=_TO_INBOX,
                status=404,
            )
        except Unavailable as error:
            _log.warning("%s cannot be shown: %s", request.url.path, error)
            return problem_page("This cannot be had just now", str(error), onward=_TO_INBOX, status=503)

    return answer
