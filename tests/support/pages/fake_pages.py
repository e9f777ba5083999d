"""A scripted OpenCode server, and a door that lets in whoever has its cookie, for the pages between them."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from opencode_gateway.door.guards import guarded
from opencode_pages.documents import (
    AskDocument,
    AskItem,
    AskPart,
    AskSummary,
    Choice,
    EndedTurn,
    InboxDocument,
    RunningSession,
)
from opencode_pages.parts import NotDecided, NotThere, ToldAsk, Unavailable, Visitor
from opencode_pages.routes import routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from opencode_pages.parts import Capability, PageDecision, Subscription

DIGEST = "0123456789abcdef" * 2
SINCE = 1_764_511_320.0
COOKIE = "session"
ALL: frozenset[Capability] = frozenset({"observe", "approve", "drive"})

DIFF = """@@ -1,4 +1,5 @@
 def total(items):
-    return sum(items)
+    # Prices are in cents.
+    return round(sum(items), 2)
@@ -9,3 +10,3 @@
 def parts(items):
"""
PERMISSION = AskDocument(
    handle="a3",
    id="per_1",
    kind="permission",
    instance="laptop",
    session="s12",
    title="Mend the build",
    summary="bash rm -rf build && make",
    since=SINCE,
    digest=DIGEST,
    directory="/home/ann/code/app",
    parts=(
        AskPart(label="permission", text="bash"),
        AskPart(label="command", text="rm -rf build && make -j2 \\\n  CFLAGS=-O2", kind="command"),
    ),
    always=("rm *", "make *"),
    always_means="until OpenCode ends, in this directory, with any arguments",
)
EDIT = PERMISSION.model_copy(
    update={
        "handle": "a4",
        "id": "per_2",
        "summary": "edit src/total.py",
        "digest": "a" * 32,
        "parts": (
            AskPart(label="permission", text="edit"),
            AskPart(label="for", text="src/total.py"),
            AskPart(label="diff", text=DIFF, kind="diff"),
        ),
        "always": ("*",),
    }
)
QUESTION = AskDocument(
    handle="a5",
    id="que_1",
    kind="question",
    instance="build host",
    session="s7",
    title="Release 2.0",
    summary="Which branch is to be released? (and 2 more)",
    since=SINCE + 60,
    digest="b" * 32,
    directory="/srv/app",
    items=(
        AskItem(
            question="Which branch is to be released?",
            options=(Choice(label="main", description="what runs in production"), Choice(label="next")),
        ),
        AskItem(
            question="Which platforms?",
            options=(Choice(label="Linux"), Choice(label="macOS"), Choice(label="Windows")),
            multiple=True,
        ),
        AskItem(question="What is the release called?"),
    ),
)


class FakeSource:
    """What a test puts into it, and what was decided."""

    def __init__(self, *asks: AskDocument) -> None:
        self.asks = {ask.handle: ask for ask in asks}
        self.running: tuple[RunningSession, ...] = ()
        self.ended: tuple[EndedTurn, ...] = ()
        self.problem = ""
        self.unavailable = ""
        """Why nothing can be had, if so."""
        self.decisions: list[PageDecision] = []
        self.on_decide: Callable[[PageDecision], None] = lambda _decision: None
        """Raises what a decision runs into."""
        self.streams = 0
        self._changed: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def inbox(self, visitor: Visitor) -> InboxDocument:
        self._check()
        asks = tuple(AskSummary(**dict(ask)) for ask in self.asks.values() if ask.state != "settled")
        return InboxDocument(
            asks=asks, running=self.running, ended=self.ended, instances=3, away=1, problem=self.problem
        )

    async def ask(self, visitor: Visitor, handle: str) -> AskDocument:
        self._check()
        if handle not in self.asks:
            raise NotThere
        return self.asks[handle]

    async def ask_of(self, visitor: Visitor, instance: str, ask_id: str) -> AskDocument:
        self._check()
        for ask in self.asks.values():
            if (ask.instance, ask.id) == (instance, ask_id):
                return ask
        raise NotThere

    async def decide(self, visitor: Visitor, decision: PageDecision) -> None:
        self.on_decide(decision)
        ask = self.asks[decision.handle]
        if ask.state != "open" or ask.digest != decision.digest:
            raise NotDecided("It is another one by now.")
        self.decisions.append(decision)
        self.put(ask.model_copy(update={"state": "settled", "settled": f"by {visitor.name}"}))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        mine = (asyncio.get_running_loop(), asyncio.Event())
        self._changed.append(mine)
        self.streams += 1
        try:
            yield self._following(mine[1])
        finally:
            self._changed.remove(mine)
            self.streams -= 1

    async def _following(self, changed: asyncio.Event) -> AsyncIterator[None]:
        while True:
            await changed.wait()
            changed.clear()
            yield

    def put(self, ask: AskDocument) -> None:
        """Let an ask be as it is here, from any thread."""
        self.asks[ask.handle] = ask
        self.change()

    def change(self) -> None:
        for loop, changed in list(self._changed):
            loop.call_soon_threadsafe(changed.set)

    def _check(self) -> None:
        if self.unavailable:
            raise Unavailable(self.unavailable)


class FakeDoor:
    """Takes a login for a session, and a keyed digest for a form's token."""

    def __init__(self) -> None:
        self.visitors: dict[str, Visitor] = {}
        self.let_in("ann")

    def let_in(self, login: str, may: frozenset[Capability] = ALL) -> str:
        """Return the cookie of a new session."""
        session = f"session-of-{login}"
        self.visitors[session] = Visitor(login, login.title(), may, session)
        return session

    def allow(self, login: str, *may: Capability) -> None:
        """Let a person have these capabilities alone."""
        session = f"session-of-{login}"
        self.visitors[session] = replace(self.visitors[session], may=frozenset(may))

    async def visitor(self, request: Request) -> Visitor | Response:
        found = self.visitors.get(request.cookies.get(COOKIE, ""))
        return found or RedirectResponse("/login", 303)

    def token(self, request: Request, visitor: Visitor, purpose: str) -> str:
        return hmac.new(b"key", f"{visitor.session} {purpose}".encode(), "sha256").hexdigest()

    async def fields(self, request: Request, visitor: Visitor, purpose: str) -> Callable[[str], list[str]] | Response:
        values = parse_qs((await request.body()).decode(), keep_blank_values=True)
        is_ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if not is_ours or values.get("token") != [self.token(request, visitor, purpose)]:
            return PlainTextResponse("This form does not belong to this page", 403)
        return lambda name: values.get(name, [])

    async def leave(self, request: Request, visitor: Visitor) -> Response:
        del self.visitors[visitor.session]
        return RedirectResponse("/login", 303)


class FakePushes:
    """Remembers who is told where."""

    # Of a key that was thrown away.
    public_key = "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM"

    def __init__(self) -> None:
        self.added: list[tuple[str, Subscription, str]] = []
        self.removed: list[tuple[str, str]] = []
        self.unavailable = ""

    async def add(self, visitor: Visitor, subscription: Subscription, device: str) -> None:
        if self.unavailable:
            raise Unavailable(self.unavailable)
        self.added.append((visitor.login, subscription, device))

    async def remove(self, visitor: Visitor, endpoint: str) -> None:
        self.removed.append((visitor.login, endpoint))


class FakeTold:
    """Knows some messages."""

    def __init__(self) -> None:
        self.asks: dict[str, ToldAsk] = {}
        self.seen: list[tuple[str, str]] = []

    async def shown(self, message: str) -> None:
        self.seen.append(("shown", message))

    async def opened(self, visitor: Visitor, message: str) -> ToldAsk | None:
        self.seen.append((f"opened by {visitor.login}", message))
        return self.asks.get(message)


class FakePages:
    """All of it together, behind the guards of a gateway."""

    def __init__(self, *asks: AskDocument, public_url: str = "https://relay.example.org") -> None:
        self.source = FakeSource(*asks)
        self.door = FakeDoor()
        self.pushes = FakePushes()
        self.told = FakeTold()
        shown = routes(self.source, self.door, pushes=self.pushes, told=self.told)
        shown.append(Route("/login", _login, methods=["GET"]))
        self.app: ASGIApp = guarded(Starlette(routes=shown), public_url)


async def _login(_request: Request) -> Response:
    return PlainTextResponse("Log in")
