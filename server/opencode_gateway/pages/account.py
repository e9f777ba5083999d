"""The page on which a person sees their passkeys, adds one on the device that they hold, and removes one.

Whoever got hold of a session must not make a passkey of their own with it: one is added after a fresh login alone.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from opencode_gateway.audit import PAGES, AuditEvent
from opencode_gateway.errors import CommandRefused, GatewayError
from opencode_gateway.pages.rendering import TEMPLATES
from opencode_gateway.pages.visits import address_of
from opencode_gateway.sign_in.passkey_rows import MAX_PASSKEYS
from opencode_gateway.sign_in.passkeys import PasskeyRefused
from opencode_pages.parts import Unavailable
from opencode_pages.paths import ACCOUNT_PATH
from opencode_pages.visits import Visits, answering, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.requests import Request

    from opencode_gateway.sign_in.passkeys import Passkeys
    from opencode_pages.parts import Door, Visitor
    from opencode_pages.visits import Handler

FRESH_SECONDS: Final = 600
"""So long after a login a passkey may be added."""
_PURPOSE: Final = "account"
_STALE: Final = "To add a passkey, log in once more: you did so more than ten minutes ago."
_DONE: Final = {"added": "The passkey is added.", "removed": "The passkey is removed."}

log = logging.getLogger(__name__)


class AccountPages:
    """Shows and changes a person's own passkeys, whatever they may do otherwise.

    Args:
        passkeys: of all people.
        door: who may come in.
        begun_at: when a session's login was.
        logs_in: whether people log in with them.
        wanted_for: decisions that need one.
        on_event: hears of what is added and removed.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        passkeys: Passkeys,
        door: Door,
        begun_at: Callable[[str], float],
        *,
        logs_in: bool,
        wanted_for: Collection[str],
        on_event: Callable[[AuditEvent], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._passkeys = passkeys
        self._door = door
        self._visits = Visits(door, has_account=True, templates=TEMPLATES)
        self._begun_at = begun_at
        self._logs_in = logs_in
        self._wanted_for = wanted_for
        self._on_event = on_event
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(ACCOUNT_PATH, _answering(self._show), methods=["GET"]),
            Route(f"{ACCOUNT_PATH}/options", _answering(self._options), methods=["POST"]),
            Route(f"{ACCOUNT_PATH}/add", _answering(self._add), methods=["POST"]),
            Route(f"{ACCOUNT_PATH}/remove", _answering(self._remove), methods=["POST"]),
            Route(f"{ACCOUNT_PATH}/again", _answering(self._log_in_again), methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        visitor = await self._visits.visitor(request)
        return self._page(request, visitor, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def _options(self, request: Request) -> Response:
        """Answer a script with what a device is to make, or with words."""
        visitor = await self._visits.visitor(request)
        await self._visits.fields(request, visitor, _PURPOSE)
        try:
            if not self._is_fresh(visitor):
                raise CommandRefused(_STALE)
            options = self._passkeys.adding(visitor.login, visitor.session)
            return Response(options, media_type="application/json")
        except CommandRefused as error:
            return PlainTextResponse(str(error), 409)

    async def _add(self, request: Request) -> Response:
        visitor = await self._visits.visitor(request)
        fields = await self._visits.fields(request, visitor, _PURPOSE)
        [name], [answer] = fields("name")[:1] or [""], fields("passkey")[:1] or [""]
        if not self._is_fresh(visitor):
            return self._page(request, visitor, message=_STALE, status=403)
        try:
            added = await self._passkeys.add(visitor.login, visitor.session, name, answer)
        except PasskeyRefused as error:
            self._report(request, visitor, "passkey-added", "refused", why=error.why)
            return self._page(request, visitor, message=str(error), status=400)
        except CommandRefused as error:
            return self._page(request, visitor, message=str(error), status=409)
        # With its public key: so the log alone proves what was signed, also when the passkey is gone.
        self._report(
            request,
            visitor,
            "passkey-added",
            "ok",
            passkey=added.id,
            device=added.name,
            credential=added.credential,
            public_key=added.public_key,
        )
        return _done("added")

    async def _remove(self, request: Request) -> Response:
        visitor = await self._visits.visitor(request)
        fields = await self._visits.fields(request, visitor, _PURPOSE)
        [passkey_id] = fields("id")[:1] or [""]
        removed = await self._passkeys.remove(visitor.login, passkey_id)
        if removed is not None:
            self._report(request, visitor, "passkey-removed", "ok", passkey=passkey_id, device=removed)
        return _done("removed")

    async def _log_in_again(self, request: Request) -> Response:
        """End this session, and lead to the login, which leads back here."""
        visitor = await self._visits.visitor(request)
        await self._visits.fields(request, visitor, _PURPOSE)
        response = await self._door.leave(request, visitor)
        if "location" in response.headers:
            response.headers["location"] = ACCOUNT_PATH
        return response

    def _is_fresh(self, visitor: Visitor) -> bool:
        return 0 <= self._clock() - self._begun_at(visitor.session) < FRESH_SECONDS

    def _page(
        self, request: Request, visitor: Visitor, *, message: str = "", done: str = "", status: int = 200
    ) -> Response:
        values: dict[str, object] = {
            "token": self._visits.token(request, visitor, _PURPOSE),
            "passkeys": self._passkeys.of(visitor.login),
            "possible": self._passkeys.possible,
            "logs_in": self._logs_in,
            "fresh": self._is_fresh(visitor),
            "signs": " and ".join(f"“{each}”" for each in self._wanted_for),
            "most": MAX_PASSKEYS,
            "message": message,
            "done": done,
        }
        return self._visits.page(request, visitor, "account.html", values, status=status)

    def _report(self, request: Request, visitor: Visitor, event: str, outcome: str, **details: object) -> None:
        details["page_session"] = visitor.session
        self._on_event(
            AuditEvent(
                event=event,
                outcome=outcome,
                login=visitor.login,
                client_name=PAGES,
                address=address_of(request),
                details=details,
            )
        )


def _answering(handle: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except GatewayError as error:
            log.exception("%s cannot be answered", request.url.path)
            raise Unavailable("The gateway cannot use its files just now. Wait a minute, and try again.") from error

    return answering(answer)


def _done(what: str) -> Response:
    return redirect(f"{ACCOUNT_PATH}?{urlencode({'done': what})}")
