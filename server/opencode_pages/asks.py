"""The page on which a person sees all of what an agent waits for, and decides it.

A decision is bound to the digest of what was shown: of anything else nothing is decided.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from opencode_pages.answers import MAX_REASON, MAX_TEXT, OWN_WORDS, Unfit, answer_of, offered, takes_reason
from opencode_pages.parts import NotDecided, NotSigned, NotThere, PageDecision, Unavailable
from opencode_pages.paths import ASKS_PATH, HANDLE, INBOX_PATH
from opencode_pages.visits import answering, redirect

if TYPE_CHECKING:
    from starlette.requests import Request

    from opencode_pages.documents import AskDocument
    from opencode_pages.forms import Fields
    from opencode_pages.parts import Signatures, Source, Visitor
    from opencode_pages.visits import Visits

_CHANGED: Final = "It changed since you looked. Nothing was decided: look at it anew."
_SETTLED: Final = "It is settled, as it says below: nothing more was decided."
"""Also to who has sent their form twice, and may have decided it by the first."""
_SHORT: Final = 80
"""Characters of a part that stands in one line with its label."""


class AskPages:
    """Shows asks, and takes decisions."""

    def __init__(self, source: Source, visits: Visits, signatures: Signatures | None = None) -> None:
        self._source = source
        self._visits = visits
        self._signatures = signatures

    def routes(self) -> list[Route]:
        """Return the routes."""
        path = f"{ASKS_PATH}/{{handle}}"
        return [
            Route(path, answering(self._show), methods=["GET"]),
            Route(path, answering(self._take), methods=["POST"]),
            Route(f"{path}/passkey", answering(self._options), methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        visitor = await self._visits.visitor(request, "observe", "approve")
        return self._page(request, visitor, await self._ask(request, visitor))

    async def _take(self, request: Request) -> Response:
        visitor = await self._visits.visitor(request, "observe", "approve")
        handle = _handle(request)
        fields = await self._visits.fields(request, visitor, purpose(handle))
        ask = await self._ask(request, visitor)
        again = partial(self._page, request, visitor, fields=fields)
        if ask.state != "open":
            return again(ask, message=_SETTLED, status=409)
        if fields("digest") != [ask.digest]:
            return again(ask, message=_CHANGED, status=409)
        try:
            decision = await self._signed(
                visitor, PageDecision(handle, ask.digest, answer_of(ask, visitor, fields)), fields
            )
        except (Unfit, NotSigned) as error:
            return again(ask, message=str(error), status=403 if isinstance(error, NotSigned) else 400)
        try:
            await self._source.decide(visitor, decision)
        except NotDecided as error:
            now = await self._ask(request, visitor)
            changed = _SETTLED if now.state == "settled" else _CHANGED
            return again(now, message=str(error) if now.digest == ask.digest else changed, status=409)
        except Unavailable as error:
            return again(await self._ask(request, visitor), message=str(error), status=503)
        # Not to the next ask: a second tap would decide that one unread.
        return redirect(f"{INBOX_PATH}?{urlencode({'decided': fields('decision')[0], 'ask': handle})}")

    async def _options(self, request: Request) -> Response:
        """Answer a script with what a passkey is to sign, or with words."""
        visitor = await self._visits.visitor(request, "approve")
        handle = _handle(request)
        fields = await self._visits.fields(request, visitor, purpose(handle))
        ask = await self._ask(request, visitor)
        try:
            if self._signatures is None or fields("digest") != [ask.digest]:
                raise NotSigned(_CHANGED)
            decision = PageDecision(handle, ask.digest, answer_of(ask, visitor, fields))
            return Response(self._signatures.options(visitor, decision), media_type="application/json")
        except (Unfit, NotSigned) as error:
            return PlainTextResponse(str(error), 409)

    async def _signed(self, visitor: Visitor, decision: PageDecision, fields: Fields) -> PageDecision:
        """Return a decision with its proof, if one is wanted. Raises `NotSigned`, `Unavailable`."""
        if self._signatures is None or not self._signatures.wanted(decision.word):
            return decision
        answer = (fields("passkey") or [""])[0]
        return replace(decision, proof=await self._signatures.proof(visitor, decision, answer))

    async def _ask(self, request: Request, visitor: Visitor) -> AskDocument:
        return await self._source.ask(visitor, _handle(request))

    def _page(
        self,
        request: Request,
        visitor: Visitor,
        ask: AskDocument,
        *,
        message: str = "",
        status: int = 200,
        fields: Fields = lambda _name: [],
    ) -> Response:
        """Return the page of an ask; what was typed into the form that led here stays in it."""
        decisions = offered(ask, visitor)
        signed = [word for word in decisions if self._signatures is not None and self._signatures.wanted(word)]
        short = [part for part in ask.parts if part.kind == "text" and _is_short(part.text)]
        values: dict[str, object] = {
            "ask": ask,
            "short_parts": short,
            "long_parts": [part for part in ask.parts if part not in short],
            "message": message,
            "decisions": decisions,
            "signed": signed,
            "unsigned": self._signatures.missing(visitor) if self._signatures is not None and signed else "",
            "may_decide": "approve" in visitor.may,
            "takes_reason": "reject" in decisions and takes_reason(ask, visitor),
            "token": self._visits.token(request, visitor, purpose(ask.handle)) if decisions else "",
            "typed": fields,
            "own_words": OWN_WORDS,
            "max_reason": MAX_REASON,
            "max_text": MAX_TEXT,
        }
        return self._visits.page(request, visitor, "ask.html", values, status=status)


def purpose(handle: str) -> str:
    """Return what the form of an ask is for."""
    return f"ask {handle}"


def _handle(request: Request) -> str:
    handle = str(request.path_params["handle"])
    if not HANDLE.fullmatch(handle):
        raise NotThere
    return handle


def _is_short(text: str) -> bool:
    return len(text) <= _SHORT and "\n" not in text
