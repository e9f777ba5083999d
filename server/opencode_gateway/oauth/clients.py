"""Which OAuth clients are admitted: those that registered, and those that a document at their own address describes.

What each proves itself with is in `credentials`, and is asked for in `client_authentication`.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.auth import InvalidRedirectUriError, InvalidScopeError, OAuthClientInformationFull
from pydantic import AnyUrl, Field

from opencode_gateway.audit import Event
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.credentials import PUBLIC, Credentials, key_set
from opencode_gateway.oauth.documents import DocumentRefused, Documents, netloc
from opencode_gateway.oauth.enrolment import HOW_TO_OPEN, opened_at
from opencode_gateway.oauth.redirects import Allowed, is_registered
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.refusals import Refusal
from opencode_gateway.sign_in.throttle import network

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from opencode_gateway.oauth.redirects import Rules
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

    @classmethod
    def of(cls, refusal: Refusal) -> NotAdmitted:
        """Return the error of a refusal that is there already."""
        return cls(refusal.kind, refusal.reason, remedy=refusal.remedy, client=refusal.client)


class AdmittedClient(OAuthClientInformationFull):
    """A client that may ask for authorization."""

    document: bool = Field(exclude=True)
    credentials: Credentials = Field(exclude=True, repr=False)
    allowed: Allowed = Field(exclude=True, repr=False)
    """What is allowed to it now."""

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
        written = self.allowed.as_written(chosen)
        if not self.allowed.allows(written) or not is_registered(
            written, [self.allowed.as_written(uri) for uri in mine]
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
            allowed = self._rules.read(db, let_in_as=row["let_in_as"])
        uris = row["redirect_uris"].split("\n")
        return self._client(
            client_id, row["name"], uris, Credentials.of(row), allowed, document=bool(row["document"])
        )

    async def keys(self, client: AdmittedClient, *, key_id: str | None) -> dict[str, Any]:
        """Return the key set that a client's assertions are checked with: a document's as the document says today.

        Args:
            client: one that is known.
            key_id: of the key that is looked for.

        Raises:
            DocumentRefused: it has none, or none that can be had.
        """
        hosts, credentials = client.allowed.document_hosts, client.credentials
        if client.document:
            # Its host was allowed when a person let it in, perhaps in a window for it alone.
            own = {netloc(client.client_id)}
            return await self._documents.keys_in(client.client_id, hosts=hosts | own, key_id=key_id)
        if credentials.jwks:
            return key_set(json.loads(credentials.jwks))
        return await self._documents.keys(credentials.jwks_uri or "", hosts=hosts, key_id=key_id)

    def may_fetch_keys(self, uri: str) -> bool:
        """Tell whether the keys at `uri` are fetched for clients that register now."""
        return self._documents.may_fetch_keys(uri, self._rules.now().document_hosts)

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
            row = db.execute("SELECT let_in_as FROM clients WHERE id = ?", (client_id,)).fetchone()
            allowed = self._rules.read(db, let_in_as=row["let_in_as"] if row else "")
        try:
            document = await self._documents.fetch(client_id, hosts=allowed.document_hosts)
        except DocumentRefused as error:
            remedy = allowed.document_remedy(client_id)
            raise NotAdmitted("document", str(error), remedy=remedy, client=client_id) from error
        name = clean_name(document.client_name)
        uris = [uri for uri in document.redirect_uris if allowed.allows(uri)]
        if not uris:
            raise NotAdmitted.of(allowed.refusal(document.redirect_uris[:MAX_REDIRECT_URIS], name))
        credentials = Credentials(auth_method=document.token_endpoint_auth_method)
        return self._client(client_id, name, uris[:MAX_REDIRECT_URIS], credentials, allowed, document=True)

    def register(
        self,
        asked: OAuthClientInformationFull,
        *,
        credentials: Credentials = PUBLIC,
        secret: str | None = None,
        address: str = "",
    ) -> None:
        """Admit a client that registers, and change `asked`, which is its answer, to what was registered.

        Of its redirect URIs those are kept that are allowed here: some clients name one for each place they run at.

        Args:
            asked: what it says of itself.
            credentials: what was agreed on; see `credentials.agreed`.
            secret: which it is told now, and never again.
            address: where it comes from.

        Raises:
            NotAdmitted: outside the window, over a limit, or with no redirect URI that is allowed.
        """
        name = clean_name(asked.client_name)
        now = self._clock()
        with self._store.transaction() as db:
            shares = self._shares_of(opened_at(db, now))
            allowed = self._rules.read(db)
            sent = {allowed.as_written(uri): uri for uri in asked.redirect_uris or []}
            uris = [uri for uri in sent if allowed.allows(uri)]
            refusal = self._refusal(db, asked, allowed, now, shares[network(address)])
            if refusal is None:
                shares[network(address)] += 1
                let_in_as = allowed.let_in_as(uris)
                _insert(db, asked.client_id, name, uris, credentials, document=False, now=now, let_in_as=let_in_as)
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
        asked.redirect_uris = [sent[uri] for uri in uris]
        asked.scope = " ".join(CAPABILITIES)
        credentials.tell(asked, secret)
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
            agreed, uris = Credentials(auth_method=pending.auth_method), [pending.redirect_uri]
            _insert(db, pending.client_id, pending.client_name, uris, agreed, document=True, now=now)
        if pending.let_in_as:
            _keep_let_in(db, pending)
        return db.execute("UPDATE clients SET granted_at = ? WHERE id = ?", (now, pending.client_id)).rowcount == 1

    def _client(
        self,
        client_id: str,
        name: str,
        uris: Iterable[str],
        credentials: Credentials,
        allowed: Allowed,
        *,
        document: bool,
    ) -> AdmittedClient:
        return AdmittedClient(
            client_id=client_id,
            client_name=name,
            redirect_uris=[AnyUrl(uri) for uri in uris],
            token_endpoint_auth_method=credentials.auth_method,
            scope=" ".join(CAPABILITIES),
            document=document,
            credentials=credentials,
            allowed=allowed,
        )

    def _closed(self, db: sqlite3.Connection) -> bool:
        return self._rules.enrolment == "window" and opened_at(db, self._clock()) is None

    def _shares_of(self, window: float | None) -> Counter[str]:
        if self._shares[0] != window:
            self._shares = (window, Counter())
        return self._shares[1]

    def _refusal(
        self, db: sqlite3.Connection, asked: OAuthClientInformationFull, allowed: Allowed, now: float, share: int
    ) -> NotAdmitted | None:
        name = clean_name(asked.client_name)
        # The window first, so that a stranger outside it learns nothing.
        if self._closed(db):
            return NotAdmitted(
                "window",
                "no new client is admitted now",
                remedy=f"{HOW_TO_OPEN}, then connect again",
                client=name,
            )
        sent = [allowed.as_written(uri) for uri in asked.redirect_uris or []]
        if len(sent) > MAX_REDIRECT_URIS:
            remedy = f"a client registers {MAX_REDIRECT_URIS} at most"
            return NotAdmitted("redirect", "it has too many redirect addresses", remedy=remedy, client=name)
        if not any(map(allowed.allows, sent)):
            return NotAdmitted.of(allowed.refusal(sent, name))
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


def _keep_let_in(db: sqlite3.Connection, pending: Pending) -> None:
    row = db.execute("SELECT let_in_as FROM clients WHERE id = ?", (pending.client_id,)).fetchone()
    names = dict.fromkeys([*(row["let_in_as"].split() if row else ()), *pending.let_in_as.split()])
    db.execute("UPDATE clients SET let_in_as = ? WHERE id = ?", (" ".join(names), pending.client_id))


def _insert(
    db: sqlite3.Connection,
    client_id: str,
    name: str,
    uris: Iterable[str],
    credentials: Credentials,
    *,
    document: bool,
    now: float,
    let_in_as: str = "",
) -> None:
    db.execute(
        "INSERT INTO clients"
        " (id, name, document, redirect_uris, created_at, let_in_as, auth_method, secret_hash, jwks, jwks_uri)"
        " VALUES (:id, :name, :document, :uris, :now, :let_in_as, :auth_method, :secret_hash, :jwks, :jwks_uri)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris,"
        " auth_method = excluded.auth_method",
        {"id": client_id, "name": name, "document": int(document), "uris": "\n".join(uris), "now": now}
        | {"let_in_as": let_in_as}
        | credentials.model_dump(),
    )
