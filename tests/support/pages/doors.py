"""Pages behind a door: one that says who looks, with a token for its form, one that takes the form, and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from opencode_pages.parts import Door


def door_routes(door: Door) -> list[Route]:
    """Return the routes of such pages."""

    async def show(request: Request) -> Response:
        visitor = await door.visitor(request)
        if isinstance(visitor, Response):
            return visitor
        shown = {"login": visitor.login, "may": sorted(visitor.may), "token": door.token(request, visitor, "decide")}
        return JSONResponse(shown)

    async def take(request: Request) -> Response:
        visitor = await door.visitor(request)
        if isinstance(visitor, Response):
            return visitor
        fields = await door.fields(request, visitor, "decide")
        return fields if isinstance(fields, Response) else JSONResponse({"answer": fields("answer")})

    async def leave(request: Request) -> Response:
        visitor = await door.visitor(request)
        return visitor if isinstance(visitor, Response) else await door.leave(request, visitor)

    return [
        Route("/inbox", show, methods=["GET"]),
        Route("/asks/{handle}", show, methods=["GET"]),
        Route("/asks/{handle}", take, methods=["POST"]),
        Route("/logout", leave, methods=["POST"]),
    ]
