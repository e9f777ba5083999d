"""Browsers that are told: their subscriptions, and what their service workers say of a message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from opencode_pages.inbox import PUSH
from opencode_pages.parts import Subscription, Unavailable
from opencode_pages.paths import MESSAGE, PUSH_PATH, RECEIPTS_PATH
from opencode_pages.visits import answering

if TYPE_CHECKING:
    from starlette.requests import Request

    from opencode_pages.parts import Pushes, Told
    from opencode_pages.visits import Visits

_MAX_ENDPOINT: Final = 2_000
"""Characters; push services use some 200."""
_MAX_KEY: Final = 200
_MAX_RECEIPT: Final = 200
"""Bytes."""
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


class DevicePages:
    """Takes subscriptions."""

    def __init__(self, pushes: Pushes, visits: Visits) -> None:
        self._pushes = pushes
        self._visits = visits

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(PUSH_PATH, answering(self._take), methods=["POST"])]

    async def _take(self, request: Request) -> Response:
        """Begin or end to tell the visitor on a browser. What is wrong is said in plain text, for the script."""
        visitor = await self._visits.visitor(request, "observe", "approve")
        fields = await self._visits.fields(request, visitor, PUSH)
        action, endpoint, point, secret = (
            "".join(fields(each)[:1]) for each in ("action", "endpoint", "p256dh", "auth")
        )
        is_one = endpoint and len(endpoint) <= _MAX_ENDPOINT and len(point) <= _MAX_KEY and len(secret) <= _MAX_KEY
        if action not in {"add", "remove"} or not is_one:
            return PlainTextResponse("This browser sent no subscription that can be used.", 400)
        try:
            if action == "add":
                subscription = Subscription(endpoint, point, secret)
                await self._pushes.add(visitor, subscription, device_name(request.headers.get("user-agent", "")))
            else:
                await self._pushes.remove(visitor, endpoint)
        except Unavailable as error:
            return PlainTextResponse(str(error), 503)
        return Response(status_code=204)


class WorkerReceipts:
    """Takes receipts of service workers, which have no session: whoever knows a message's id may say it was shown."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(RECEIPTS_PATH, self._take, methods=["POST"])]

    async def _take(self, request: Request) -> Response:
        # Pages of other sites can send no JSON here unasked, and who asks is refused.
        is_ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if not is_ours or request.headers.get("content-type") != "application/json":
            return Response(status_code=403)
        message = _shown_message(await _body(request))
        if message is None:
            return Response(status_code=400)
        await self._told.shown(message)
        # The same for an id that is none: nothing is to be learned here.
        return Response(status_code=204)


def device_name(user_agent: str) -> str:
    """Return what a person calls a browser that says this of itself, as `Chrome on Android`."""
    browser = next((name for word, name in _BROWSERS if word in user_agent), "a browser")
    system = next((name for word, name in _SYSTEMS if word in user_agent), "")
    return f"{browser} on {system}" if system else browser


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_RECEIPT:
                return b""
    except ClientDisconnect:
        return b""
    return bytes(body)


def _shown_message(body: bytes) -> str | None:
    """Return the id of the message that a receipt says was shown; None if it is no such receipt."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("state") != "shown":
        return None
    message = told.get("id")
    return message if isinstance(message, str) and MESSAGE.fullmatch(message) else None
