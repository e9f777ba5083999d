"""Which OAuth clients are admitted: those that registered, and those that a document at their own address describes.

All are public clients (`none`): what they hold is a code bound to PKCE, or a token. A client that registers for a
secret is answered that it has none (RFC 7591, 3.2.1), so that there is no secret to keep or to lose.
"""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Final

from mcp.shared.auth import InvalidRedirectUriError, InvalidScopeError, OAuthClientInformationFull
from pydantic import AnyUrl, Field

from opencode_gateway.audit import Event
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.configuration import Clients as Rules  # noqa: TC001 # pydantic needs it at run time
from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.documents import DocumentRefused, Documents
from opencode_gateway.oauth.enrolment import HOW_TO_OPEN, opened_at
from opencode_gateway.oauth.redirects import as_written, is_allowed, is_registered
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.refusals import Refusal
from opencode_gateway.sign_in.throttle import network

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from opencode_gateway.oauth.requests import Pending
    from opencode_gateway.refusals import Kind
    from opencode_gateway.store import Store

MAX_NAME: Final = 80
MAX_CLIENTS: Final = 200
"""That somebody granted something. The others have the bounds that follow, which a stranger can reach."""
MAX_PER_ADDRESS: Final = 3
"""Of one network address in one window, so that one stranger does not use up what the owner opened."""
MAX_PER_WINDOW: Final = 50
MAX_UNUSED: Final = 50
"""Registered and not yet granted anything: they are what a stranger can fill where enrolment is `open`."""
MAX_REDIRECT_URIS: Final = 10
UNUSED_SECONDS: Final = 3600
"""After which a client that was never granted anything is forgotten."""


class NotAdmitted(GatewayError):
    """A client is not known here and may not become so now."""

    def __init__(self, kind: Kind, reason: str, *, remedy: str, client: str = "") -> None:
        """Take what `refusals.Refusal` has. The message is the reason, and then the remedy."""
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.refusal = Refusal(kind=kind, reason=reason, remedy=remedy, client=client)


class AdmittedClient(OAuthClientInformationFull):
    """A client that may ask for authorization."""

    document: bool = Field(exclude=True)
    rules: Rules = Field(exclude=True, repr=False)

    def validate_scope(self, requested_scope: str | None) -> list[str] | None:
        """Return the capabilities that are asked for. Scopes that we do not have are passed over (RFC 6749, 3.3)."""
        asked = (requested_scope or "").split()
        known: list[str] = [capability for capability in CAPABILITIES if capability in asked]
        if asked and not known:
            raise InvalidScopeError(f"the scopes here are {' '.join(CAPABILITIES)}")
        return known or list(CAPABILITIES)

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        """Return where the answer goes: a URI of the client's own that the configuration still allows."""
        mine = self.redirect_uris or []
        chosen = mine[0] if redirect_uri is None and len(mine) == 1 else redirect_uri
        if chosen is None:
            raise InvalidRedirectUriError("redirect_uri is missing, and this client has more than one")
        written = as_written(chosen, self.rules)
        if not is_allowed(written, self.rules) or not is_registered(
            written, [as_written(uri, self.rules) for uri in mine]
        ):
            raise InvalidRedirectUriError("redirect_uri is not one that this client registered and this relay allows")
        return chosen


class Clients:
    """The clients of one gateway.

    Args:
        rules: what the configuration admits.
        documents: fetches client-id documents.
        clock: seconds since the epoch.
        on_event: hears of clients that registered.
    """

    def __init__(
        self,
        store: Store,
        rules: Rules,
        documents: Documents,
        *,
        clock: Callable[[], float] = time.time,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._on_event = on_event
        self._store = store
        self._rules = rules
        self._documents = documents
        self._clock = clock
        self._shares: tuple[float | None, Counter[str]] = (None, Counter())
        """When the window was opened, and how many each network registered in it: `MAX_PER_WINDOW` at most."""

    def known(self, client_id: str) -> AdmittedClient | None:
        """Return a client that registered here, or that a person has granted something to."""
        with self._store.transaction(write=False) as db:
            row = db.execute("SELECT * FROM clients WHERE id = ?", (client_id,)).fetchone()
        if row is None:
            return None
        uris = row["redirect_uris"].split("\n")
        return self._client(client_id, row["name"], uris, document=bool(row["document"]))

    async def admit(self, client_id: str) -> AdmittedClient:
        """Return a client that may send a person here now.

        A registered one passed the window when it registered. A document's is one for all people of a chat service,
        so each authorization needs the window, and nothing is fetched outside it.

        Raises:
            NotAdmitted: it may not.
        """
        if not self._documents.is_id(client_id):
            client = self.known(client_id)
            if client is None or client.document:
                raise NotAdmitted(
                    "unknown", "this client is not registered here", remedy=f"connect it anew while {HOW_TO_OPEN}"
                )
            return client
        with self._store.transaction(write=False) as db:
            if self._closed(db):
                raise NotAdmitted(
                    "window", "no new client is admitted now", remedy=f"{HOW_TO_OPEN}, then connect again"
                )
        try:
            document = await self._documents.fetch(client_id)
        except DocumentRefused as error:
            raise NotAdmitted("document", str(error), remedy="", client=client_id) from error
        uris = [uri for uri in document.redirect_uris if is_allowed(uri, self._rules)]
        if not uris:
            raise NotAdmitted(
                "redirect",
                "the client's document names no redirect address that this relay allows",
                remedy="",
                client=client_id,
            )
        return self._client(client_id, clean_name(document.client_name), uris[:MAX_REDIRECT_URIS], document=True)

    def register(self, asked: OAuthClientInformationFull, *, address: str = "") -> None:
        """Admit a client that registers, and change `asked`, which is its answer, to what was registered.

        Args:
            asked: what it says of itself.
            address: where it comes from.

        Raises:
            NotAdmitted: outside the window, over a limit, or for a redirect URI that is not allowed.
        """
        uris = [as_written(uri, self._rules) for uri in asked.redirect_uris or []]
        name = clean_name(asked.client_name)
        now = self._clock()
        with self._store.transaction() as db:
            shares = self._shares_of(opened_at(db, now))
            refusal = self._refusal(db, uris, now, shares[network(address)], name)
            if refusal is None:
                shares[network(address)] += 1
                _insert(db, asked.client_id, name, uris, document=False, now=now)
        if refusal is not None:
            raise refusal
        self._on_event(
            Event(
                event="client-registered",
                outcome="ok",
                client_id=asked.client_id,
                client_name=name,
                details={"redirect_uris": uris},
            )
        )
        for field in type(asked).model_fields:
            if field not in {
                "client_id",
                "client_id_issued_at",
                "redirect_uris",
                "response_types",
                "application_type",
            }:
                setattr(asked, field, None)
        asked.client_name = name
        asked.scope = " ".join(CAPABILITIES)
        asked.token_endpoint_auth_method = "none"  # noqa: S105 # the name of a method
        asked.grant_types = ["authorization_code", "refresh_token"]
        asked.response_types = ["code"]

    def window(self) -> float | None:
        """Return when the window was opened that is open now, in seconds since the epoch; None if none is."""
        with self._store.transaction(write=False) as db:
            return opened_at(db, self._clock())

    def granted(self, db: sqlite3.Connection, pending: Pending) -> bool:
        """Note that a person granted something to this client, and keep a document's from now on.

        Returns:
            False if it was revoked meanwhile.
        """
        now = self._clock()
        if pending.document:
            self._prune(db, now)
            _insert(db, pending.client_id, pending.client_name, [pending.redirect_uri], document=True, now=now)
        return db.execute("UPDATE clients SET granted_at = ? WHERE id = ?", (now, pending.client_id)).rowcount == 1

    def _client(self, client_id: str, name: str, uris: Iterable[str], *, document: bool) -> AdmittedClient:
        return AdmittedClient(
            client_id=client_id,
            client_name=name,
            redirect_uris=[AnyUrl(uri) for uri in uris],
            token_endpoint_auth_method="none",  # noqa: S106 # the name of a method
            scope=" ".join(CAPABILITIES),
            document=document,
            rules=self._rules,
        )

    def _closed(self, db: sqlite3.Connection) -> bool:
        return self._rules.enrolment == "window" and opened_at(db, self._clock()) is None

    def _shares_of(self, window: float | None) -> Counter[str]:
        if self._shares[0] != window:
            self._shares = (window, Counter())
        return self._shares[1]

    def _refusal(
        self, db: sqlite3.Connection, uris: list[str], now: float, share: int, name: str
    ) -> NotAdmitted | None:
        # The window first, so that a stranger outside it learns nothing.
        if self._closed(db):
            return NotAdmitted(
                "window",
                "no new client is admitted now",
                remedy=f"{HOW_TO_OPEN}, then connect again",
                client=name,
            )
        if not uris or len(uris) > MAX_REDIRECT_URIS or not all(is_allowed(uri, self._rules) for uri in uris):
            return NotAdmitted(
                "redirect",
                "redirect_uris may hold only those that this relay's configuration allows",
                remedy="the owner of this relay allows others with clients.redirect_uris or"
                " clients.loopback_redirects in gateway.json",
                client=name,
            )
        self._prune(db, now)
        windowed = self._rules.enrolment == "window"
        count = db.execute(
            "SELECT count(granted_at) AS used, count(*) FILTER (WHERE granted_at IS NULL) AS unused,"
            " count(*) FILTER (WHERE created_at >= ?) AS here FROM clients WHERE document = 0",
            (opened_at(db, now) or now,),
        ).fetchone()
        if windowed and (share >= MAX_PER_ADDRESS or count["here"] >= MAX_PER_WINDOW):
            return NotAdmitted(
                "limit",
                "too many clients registered in this window",
                remedy="the owner opens another with `opencode-gateway clients allow`",
                client=name,
            )
        if count["used"] >= MAX_CLIENTS or (not windowed and count["unused"] >= MAX_UNUSED):
            return NotAdmitted(
                "limit",
                "too many clients are registered",
                remedy="the owner removes some with `opencode-gateway clients revoke`",
                client=name,
            )
        return None

    def _prune(self, db: sqlite3.Connection, now: float) -> None:
        # Those of an earlier window go at once, but for one whose person may be on the login page and has just had
        # the window opened anew, for its code.
        opened = opened_at(db, now) if self._rules.enrolment == "window" else None
        before = now - UNUSED_SECONDS if opened is None else min(opened, now - LIFETIME_SECONDS)
        db.execute(
            "DELETE FROM clients WHERE granted_at IS NULL AND created_at < ?", (max(before, now - UNUSED_SECONDS),)
        )
        # A document's client is only a name for its sessions.
        db.execute(
            "DELETE FROM clients WHERE document = 1"
            " AND NOT EXISTS (SELECT 1 FROM sessions WHERE client_id = clients.id)"
            " AND NOT EXISTS (SELECT 1 FROM codes WHERE client_id = clients.id)"
        )


def clean_name(name: str | None) -> str:
    """Return a name as it may be shown: one line of at most 80 characters that leave the text around it alone."""
    visible = "".join(
        " " if character.isspace() else character
        for character in (name or "")[: 10 * MAX_NAME]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    return " ".join(visible.split())[:MAX_NAME].strip() or "a client without a name"


def _insert(
    db: sqlite3.Connection, client_id: str, name: str, uris: Iterable[str], *, document: bool, now: float
) -> None:
    db.execute(
        "INSERT INTO clients (id, name, document, redirect_uris, created_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris",
        (client_id, name, int(document), "\n".join(uris), now),
    )
