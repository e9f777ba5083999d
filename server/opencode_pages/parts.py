"""What the pages need from whoever serves them: what to show, and who looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_pages.documents import AskDocument, InboxDocument
    from opencode_pages.forms import Fields

Capability = Literal["observe", "approve", "drive"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks, as they are at this request."""

    login: str
    name: str
    """For people to read."""
    may: frozenset[Capability]
    session: str = field(default="", repr=False)
    """Marks their session on the pages."""


@dataclass(frozen=True, slots=True)
class PageDecision:
    """A person's word on an ask.

    Args:
        handle: of the ask.
        digest: of the `AskDocument` that the person had before them.
        answer: `once`, `always`, `reject` or `reject: why` for a permission; of a question `reject`, or an answer for
            each item: a label, several labels with commas between them, or a text.
        proof: of a passkey's signature over it, for the audit log; empty without one.
    """

    handle: str
    digest: str
    answer: str | list[str]
    proof: str = ""

    @property
    def word(self) -> str:
        """What it is in a word: `once`, `always`, `reject` or `answer`, without any text of a person's.

        As the OpenCode server reads it, whoever wrote it: that a signature is wanted must not depend on a capital.
        """
        word = self.answer.partition(":")[0].strip().lower() if isinstance(self.answer, str) else ""
        return word if word in {"once", "always", "reject"} else "answer"


class Unavailable(Exception):
    """What was asked for cannot be had now; the message is for people, with the next step."""


class NotThere(Exception):
    """There is no such ask."""


class NotDecided(Exception):
    """A decision was not taken; the message says why. What the ask is now is to be read anew."""


class NotSigned(Exception):
    """A decision was not signed as it must be; the message says what to do. Nothing was decided."""


class Source(Protocol):
    """The OpenCode server, for a person."""

    async def inbox(self, visitor: Visitor) -> InboxDocument:
        """Return what needs them, what runs and what ended. Raises `Unavailable`."""

    async def ask(self, visitor: Visitor, handle: str) -> AskDocument:
        """Return all of an ask. Raises `NotThere`, `Unavailable`."""

    async def ask_of(self, visitor: Visitor, instance: str, ask_id: str) -> AskDocument:
        """Return all of an ask by its own id. Raises `NotThere`, `Unavailable`."""

    async def decide(self, visitor: Visitor, decision: PageDecision) -> None:
        """Apply a decision to what the visitor was shown, and to nothing else; the agent goes on by itself.

        Raises:
            NotDecided: it was settled elsewhere, changed since, is not theirs to decide, or the answer does not fit.
            Unavailable: whether it was taken is not known; the ask says so when it is read anew.
        """

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Give what yields whenever something of an inbox may be another, for as long as it is in use."""


class Door(Protocol):
    """Who may come in, and whose forms are taken."""

    async def visitor(self, request: Request) -> Visitor | Response:
        """Return who looks, or what leads them to the login, which leads back here."""

    def token(self, request: Request, visitor: Visitor, purpose: str) -> str:
        """Return what a form of this purpose must bring along: it is this session's alone."""

    async def fields(self, request: Request, visitor: Visitor, purpose: str) -> Fields | Response:
        """Return the fields of a form that we gave this session; else what is wrong with it."""

    async def leave(self, request: Request, visitor: Visitor) -> Response:
        """End this session."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a browser gives out for Web Push: whoever has it can write to that browser."""

    endpoint: str = field(repr=False)
    p256dh: str = field(repr=False)
    auth: str = field(repr=False)


class Pushes(Protocol):
    """Browsers that are told, as outlets of a person."""

    @property
    def public_key(self) -> str:
        """The key (VAPID) that a subscription is made for: a point, uncompressed, as base64url without padding."""

    async def add(self, visitor: Visitor, subscription: Subscription, device: str) -> None:
        """Tell them on this browser from now on; again for the same endpoint changes nothing but its keys.

        Args:
            visitor: whose it is.
            subscription: as the browser gave it: anything may be in it.
            device: what it is called, as `Chrome on Android`.

        Raises:
            Unavailable: it was not taken.
        """

    async def remove(self, visitor: Visitor, endpoint: str) -> None:
        """Do so no longer; does nothing where the endpoint is none of theirs. Raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class ToldAsk:
    """The one ask that a message told of."""

    instance: str
    id: str
    """The agent's own."""


class Told(Protocol):
    """What became of the messages that told people something. Their ids are 20 hexadecimal digits."""

    async def shown(self, message: str) -> None:
        """Note that a browser showed a message. Anybody may say so; does nothing for an id that is none."""

    async def opened(self, visitor: Visitor, message: str) -> ToldAsk | None:
        """Note that the visitor opened a message of theirs, and return the one ask that it told of.

        Returns:
            None where it told of several things, or of something else, or was never theirs.
        """


class Signatures(Protocol):
    """Passkeys of people: their devices sign a decision, with their finger, face or PIN."""

    def wanted(self, word: str) -> bool:
        """Tell whether a decision of this word (`PageDecision.word`) is taken only with a signature."""

    def missing(self, visitor: Visitor) -> str:
        """Return why the visitor cannot sign, in words for people with the next step; empty: they can.

        Raises:
            Unavailable: that cannot be looked up now.
        """

    def options(self, visitor: Visitor, decision: PageDecision) -> str:
        """Return what the browser needs to have this decision signed, as JSON. Raises `NotSigned`, `Unavailable`."""

    async def proof(self, visitor: Visitor, decision: PageDecision, answer: str) -> str:
        """Return the proof that the visitor signed this decision, good once.

        Args:
            visitor: whose session the options were for.
            decision: as with `options`.
            answer: the browser's, as JSON: anything may be in it. Empty: it asked for none.

        Raises:
            NotSigned: it is no signature over it, or was used before.
            Unavailable: that cannot be established now.
        """
