"""The inbox: what needs the person, what runs and what ended, as it is now."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from opencode_pages.documents import InboxDocument
from opencode_pages.parts import NotThere, Unavailable
from opencode_pages.paths import ASKS_PATH, HANDLE, INBOX_PATH, MESSAGE, TOLD_PATH
from opencode_pages.rendering import TEMPLATES
from opencode_pages.streams import Streams
from opencode_pages.visits import Answered, answering, redirect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from opencode_pages.parts import Pushes, Source, Told, Visitor
    from opencode_pages.visits import Visits

NOW_PATH: Final = f"{INBOX_PATH}/now"
EVENTS_PATH: Final = f"{INBOX_PATH}/events"
PUSH: Final = "push"
"""The purpose of what asks for notifications."""
REFRESH_SECONDS: Final = 20
"""A page without a script comes anew so often."""
COMMENT_SECONDS: Final = 15.0
"""A stream says so often that it is there, and asks whether its visitor still is."""
SETTLE_SECONDS: Final = 0.1
"""What changes in quick succession is shown together."""
_DECIDED: Final = {
    "once": "was allowed once",
    "always": "was allowed, and what it covers from now on",
    "reject": "was rejected",
    "answer": "was answered",
}
_NOTES: Final = {
    "over": "What that message told of is not there any more. This is what is.",
    "unknown": "This is what needs you now.",
}


class InboxPages:
    """Shows the inbox, and keeps it as it is now where a script runs.

    Args:
        source: what is shown.
        visits: who looks.
        pushes: notifies browsers; None: it is not offered.
        told: what became of messages; None: there are none.
    """

    def __init__(self, source: Source, visits: Visits, pushes: Pushes | None, told: Told | None) -> None:
        self._source = source
        self._visits = visits
        self._pushes = pushes
        self._told = told
        self._streams = Streams()

    def routes(self) -> list[Route]:
        """Return the routes."""
        shown = {INBOX_PATH: self._show, NOW_PATH: self._now, EVENTS_PATH: self._events}
        if self._told is not None:
            shown[f"{TOLD_PATH}/{{message}}"] = self._opened
        return [Route(path, answering(handle), methods=["GET"]) for path, handle in shown.items()]

    async def _show(self, request: Request) -> Response:
        visitor = await self._visitor(request)
        now, status = await self._fragment(visitor)
        values: dict[str, object] = {
            "now": now,
            "mark": _mark(now),
            "note": _note(request),
            "refresh": REFRESH_SECONDS,
            "push_key": self._pushes.public_key if self._pushes else "",
            "push_token": self._visits.token(request, visitor, PUSH) if self._pushes else "",
        }
        return self._visits.page(request, visitor, "inbox.html", values, status=status)

    async def _now(self, request: Request) -> Response:
        """Answer with what the script puts into the page."""
        now, status = await self._fragment(await self._visitor(request))
        # By its mark the script tells it from what a proxy or a door in between answers.
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Inbox-Mark": _mark(now)}
        return HTMLResponse(now, status, headers)

    async def _events(self, request: Request) -> Response:
        """Answer with a stream that has what `_now` has, whenever it is another."""
        visitor = await self._visitor(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(self._stream(request, visitor), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request, visitor: Visitor) -> AsyncIterator[str]:
        seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        with self._streams.place(visitor.login) as place:
            async with self._source.changes() as changes, place.following(changes):
                yield "retry: 2000\n\n"
                # Read anew at each turn: their session may be over by then, or may less.
                while (as_now := await self._still(request)) is not None and not place.is_ended:
                    now, _ = await self._fragment(as_now)
                    mark = _mark(now)
                    yield _event(mark, now) if mark != seen else ": here\n\n"
                    seen = mark
                    await asyncio.sleep(SETTLE_SECONDS)
                    await place.wait(COMMENT_SECONDS)
            # Otherwise a browser would open another at once.
            yield "event: over\ndata:\n\n"

    async def _opened(self, request: Request) -> Response:
        """Lead who was told something to what needs them."""
        visitor = await self._visitor(request)
        message = str(request.path_params["message"])
        if self._told is None or not MESSAGE.fullmatch(message):
            return redirect(f"{INBOX_PATH}?note=unknown")
        ask = await self._told.opened(visitor, message)
        if ask is None:
            return redirect(INBOX_PATH)
        try:
            found = await self._source.ask_of(visitor, ask.instance, ask.id)
        except NotThere:
            return redirect(f"{INBOX_PATH}?note=over")
        except Unavailable:
            # The inbox says what is wrong.
            return redirect(INBOX_PATH)
        return redirect(f"{ASKS_PATH}/{found.handle}")

    async def _visitor(self, request: Request) -> Visitor:
        return await self._visits.visitor(request, "observe", "approve")

    async def _still(self, request: Request) -> Visitor | None:
        try:
            return await self._visitor(request)
        except Answered:
            return None

    async def _fragment(self, visitor: Visitor) -> tuple[str, int]:
        """Return what is to be seen now, as HTML, and its status."""
        status = 200
        try:
            inbox = await self._source.inbox(visitor)
        except Unavailable as error:
            inbox, status = InboxDocument(problem=str(error)), 503
        if "observe" not in visitor.may:
            # Who may only decide sees what is to be decided.
            inbox = inbox.model_copy(
                update={"running": (), "running_left_out": 0, "ended": (), "instances": 0, "away": 0}
            )
        return TEMPLATES.text(
            "inbox_now.html",
            {"inbox": inbox, "is_known": status == 200, "visitor_observes": "observe" in visitor.may},
        ), status


def _note(request: Request) -> str:
    """Return what is to be said of what was done a moment ago."""
    asked = request.query_params
    if (note := asked.get("note")) is not None:
        return _NOTES.get(note, "")
    decided, handle = _DECIDED.get(asked.get("decided", "")), asked.get("ask", "")
    # Otherwise anybody's link could say that something was decided.
    is_ours = request.headers.get("sec-fetch-site") == "same-origin"
    return f"{handle} {decided}." if decided and is_ours and HANDLE.fullmatch(handle) else ""


def _mark(html: str) -> str:
    return hashlib.sha256(html.encode()).hexdigest()[:16]


def _event(mark: str, html: str) -> str:
    lines = "\n".join(f"data: {line}" for line in html.splitlines())
    return f"id: {mark}\n{lines}\n\n"
