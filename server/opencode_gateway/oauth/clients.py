"""Which OAuth clients are admitted: those that registered, and those that a document at their own address describes.

What each proves itself with is in `credentials`, and is asked for in `client_authentication`.
A client has a row from the first consent on. Before, a registered one carries itself: see `registrations`.
"""

from __future__ import annotations

import json
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.auth import InvalidRedirectUriError, InvalidScopeError, OAuthClientInformationFull
from pydantic import AnyUrl, Field

from opencode_gateway.audit import AuditEvent
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.client_rows import (
    UNUSED_SECONDS,
    insert,
    is_full,
    keep_let_in,
    make_room,
    prune,
    row_of,
)
from opencode_gateway.oauth.credentials import PUBLIC, ClientCredentials, key_set
from opencode_gateway.oauth.documents import ClientDocuments, DocumentRefused, netloc
from opencode_gateway.oauth.enrolment import how_to_open, opened_at, was_closed_since, was_revoked
from opencode_gateway.oauth.known_clients import hosts_document
from opencode_gateway.oauth.redirects import Allowed, is_registered, likeliest, still_let_in
from opencode_gateway.oauth.registrations import Registrations
from opencode_gateway.oauth.renewals import may_renew, note_renewal
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.refusals import Refusal
from opencode_gateway.sign_in.throttle import Buckets, Budget, network

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from opencode_gateway.oauth.redirects import RedirectRules
    from opencode_gateway.oauth.requests import Pending
    from opencode_gateway.refusals import Kind
    from opencode_gateway.store import Store

MAX_NAME: Final = 80
MAX_REDIRECT_URIS: Final = 10
_TOLD: Final = Budget(50, 60)
"""Audit lines about registrations: strangers must not push everything else out of the log."""


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
    credentials: ClientCredentials = Field(exclude=True, repr=False)
    only_login: str | None = Field(default=None, exclude=True)
    """See `Pending.only_login`."""
    allowed: Allowed = Field(exclude=True, repr=False)
    """What is allowed to it now."""
    is_granted: bool = Field(default=True, exclude=True)
    """Whether somebody has granted something to it."""

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


class OAuthClients:
    """The clients of one gateway.

    Args:
        rules: what the configuration admits.
        documents: fetches client-id documents.
        key: the service's own; see `requests.signing_key`.
        clock: seconds since the epoch.
        on_event: hears of clients that registered.
    """

    def __init__(
        self,
        store: Store,
        rules: RedirectRules,
        documents: ClientDocuments,
        *,
        key: bytes,
        clock: Callable[[], float] = time.time,
        on_event: Callable[[AuditEvent], None] = lambda event: None,
    ) -> None:
        self._on_event = on_event
        self._store = store
        self._rules = rules
        self._documents = documents
        self._clock = clock
        self._registrations = Registrations(key, clock=clock)
        self._told = Buckets(_TOLD, max_keys=1)

    def known(self, client_id: str) -> AdmittedClient | None:
        """Return a client that registered here, or that a person has granted something to."""
        row: Mapping[str, Any] | sqlite3.Row | None
        with self._store.transaction(write=False) as db:
            row = found = db.execute("SELECT * FROM clients WHERE id = ?", (client_id,)).fetchone()
            row = row or self._read(db, client_id, UNUSED_SECONDS)
            if row is None:
                return None
            allowed = self._rules.read(db, let_in_as=row["let_in_as"])
        return self._client(client_id, row, allowed, is_granted=found is not None)

    async def keys(self, client: AdmittedClient, *, key_id: str | None, address: str = "") -> dict[str, Any]:
        """Return the key set that a client's assertions are checked with: a document's as the document says today.

        Args:
            client: one that is known.
            key_id: of the key that is looked for.
            address: where the request comes from.

        Raises:
            DocumentRefused: it has none, or none that can be had.
        """
        hosts, credentials, source = client.allowed.document_hosts, client.credentials, network(address)
        if client.document:
            # Its host was allowed when a person let it in, perhaps in a window for it alone.
            own = {netloc(client.client_id)}
            return await self._documents.keys_in(client.client_id, hosts=hosts | own, key_id=key_id, source=source)
        if credentials.jwks:
            return key_set(json.loads(credentials.jwks))
        return await self._documents.keys(credentials.jwks_uri or "", hosts=hosts, key_id=key_id, source=source)

    def may_fetch_keys(self, uri: str) -> bool:
        """Tell whether the keys at `uri` are fetched for clients that register now."""
        return self._documents.may_fetch_keys(uri, self._rules.now().document_hosts)

    async def admit(self, client_id: str, *, login: str | None = None, address: str = "") -> AdmittedClient:
        """Return a client that may send a person here now.

        A registered one passed the window when it registered. A document's is one for all people of a chat service,
        so each authorization needs the window, but for those who let it in before; else nothing is fetched.

        Args:
            client_id: any text.
            login: who logged in last from the browser that asks.
            address: where that is.

        Raises:
            NotAdmitted: it may not.
        """
        if not self._documents.is_id(client_id):
            client = self.known(client_id)
            if client is None or client.document:
                raise NotAdmitted(
                    "unknown",
                    "this client is not registered here",
                    remedy=f"{how_to_open()}, then connect it anew",
                )
            return client
        with self._store.transaction(write=False) as db:
            only_login = login if self._closed(db) else None
            if self._closed(db) and not (login and may_renew(db, client_id, login, self._clock())):
                opening = how_to_open(hosts_document(netloc(client_id)))
                raise NotAdmitted("window", "no new client is admitted now", remedy=f"{opening}, then connect again")
            row = db.execute("SELECT let_in_as FROM clients WHERE id = ?", (client_id,)).fetchone()
            allowed = self._rules.read(db, let_in_as=row["let_in_as"] if row else "")
        try:
            document = await self._documents.fetch(client_id, hosts=allowed.document_hosts, source=network(address))
        except DocumentRefused as error:
            remedy = allowed.document_remedy(client_id)
            raise NotAdmitted("document", str(error), remedy=remedy, client=client_id) from error
        name = clean_name(document.client_name)
        uris = [uri for uri in document.redirect_uris if allowed.allows(uri)]
        if not uris:
            raise NotAdmitted.of(allowed.refusal(document.redirect_uris[:MAX_REDIRECT_URIS], name))
        credentials = ClientCredentials(auth_method=document.token_endpoint_auth_method)
        row = row_of(name, uris[:MAX_REDIRECT_URIS], credentials, document=True)
        return self._client(client_id, row, allowed, only_login=only_login)

    def register(
        self,
        asked: OAuthClientInformationFull,
        *,
        credentials: ClientCredentials = PUBLIC,
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
            NotAdmitted: outside the window, with no redirect URI that is allowed, or if it is too much.
        """
        name = clean_name(asked.client_name)
        with self._store.transaction(write=False) as db:
            allowed = self._rules.read(db)
            sent = {allowed.as_written(uri): uri for uri in asked.redirect_uris or []}
            uris = [uri for uri in sent if allowed.allows(uri)]
            refusal = self._refusal(db, asked, allowed)
        if refusal is not None:
            raise refusal
        let_in_as = allowed.let_in_as(uris)
        client_id = self._registrations.sign(row_of(name, uris, credentials, document=False, let_in_as=let_in_as))
        if client_id is None:
            remedy = "a client registers fewer or shorter redirect_uris, and at most two keys, or a jwks_uri"
            raise NotAdmitted("limit", "what it registers is too long", remedy=remedy, client=name)
        asked.client_id = client_id
        self._tell(asked, name, uris, address)
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

    def granted(self, db: sqlite3.Connection, pending: Pending, login: str) -> bool:
        """Note that this person granted something to this client, which has a row from now on.

        Returns:
            False if the client, or what the person had granted it before, was revoked meanwhile, or the owner has
            closed the window that it came by.

        Raises:
            Refused: there are too many clients.
        """
        now = self._clock()
        if pending.only_login is not None and not may_renew(db, pending.client_id, pending.only_login, now):
            return False
        prune(db, now)
        if pending.document:
            if was_revoked(db, pending.client_id, since=pending.asked_at) or (
                pending.only_login is None and was_closed_since(db, pending.asked_at)
            ):
                return False
            credentials = ClientCredentials(auth_method=pending.auth_method)
            row = row_of(pending.client_name, [pending.redirect_uri], credentials, document=True)
            insert(db, pending.client_id, row, now)
            note_renewal(db, pending.client_id, login, now)
        elif db.execute("SELECT 1 FROM clients WHERE id = ?", (pending.client_id,)).fetchone() is None:
            registered = self._read(db, pending.client_id, UNUSED_SECONDS + LIFETIME_SECONDS)
            if registered is None:
                return False
            make_room(db)
            insert(db, pending.client_id, registered, now)
        if let_in_as := still_let_in(db, pending.let_in_as, pending.asked_at):
            keep_let_in(db, pending.client_id, let_in_as)
        return db.execute("UPDATE clients SET granted_at = ? WHERE id = ?", (now, pending.client_id)).rowcount == 1

    def _read(self, db: sqlite3.Connection, client_id: str, seconds: float) -> dict[str, Any] | None:
        """Return what a client registered that nobody has granted anything to yet."""
        found = self._registrations.read(client_id, seconds=seconds)
        if found is None:
            return None
        row, registered_at = found
        if was_revoked(db, client_id) or was_closed_since(db, registered_at):
            return None
        return row | {"let_in_as": still_let_in(db, row["let_in_as"], registered_at)}

    def _client(
        self,
        client_id: str,
        row: Mapping[str, Any] | sqlite3.Row,
        allowed: Allowed,
        *,
        only_login: str | None = None,
        is_granted: bool = True,
    ) -> AdmittedClient:
        credentials = ClientCredentials.of(row)
        return AdmittedClient(
            client_id=client_id,
            client_name=row["name"],
            redirect_uris=[AnyUrl(uri) for uri in row["redirect_uris"].split("\n")],
            token_endpoint_auth_method=credentials.auth_method,
            scope=" ".join(CAPABILITIES),
            document=bool(row["document"]),
            credentials=credentials,
            only_login=only_login,
            allowed=allowed,
            is_granted=is_granted,
        )

    def _tell(self, asked: OAuthClientInformationFull, name: str, uris: list[str], address: str) -> None:
        if self._told.wait(None):
            return
        self._told.take(None)
        self._on_event(
            AuditEvent(
                event="client-registered",
                outcome="ok",
                client_id=asked.client_id,
                client_name=name,
                address=address or None,
                details={"redirect_uris": uris},
            )
        )

    def _closed(self, db: sqlite3.Connection) -> bool:
        return self._rules.enrolment == "window" and opened_at(db, self._clock()) is None

    def _refusal(
        self, db: sqlite3.Connection, asked: OAuthClientInformationFull, allowed: Allowed
    ) -> NotAdmitted | None:
        name = clean_name(asked.client_name)
        sent = [allowed.as_written(uri) for uri in asked.redirect_uris or []]
        # The window first, so that a stranger outside it learns nothing.
        if self._closed(db):
            return NotAdmitted(
                "window",
                "no new client is admitted now",
                remedy=f"{how_to_open(likeliest(sent, name))}, then connect again",
                client=name,
            )
        if len(sent) > MAX_REDIRECT_URIS:
            remedy = f"a client registers {MAX_REDIRECT_URIS} at most"
            return NotAdmitted("redirect", "it has too many redirect addresses", remedy=remedy, client=name)
        if not any(map(allowed.allows, sent)):
            return NotAdmitted.of(allowed.refusal(sent, name))
        if is_full(db):
            return NotAdmitted(
                "limit",
                "too many clients are registered",
                remedy="the owner removes some with `sudo opencode-gateway clients revoke ID`",
                client=name,
            )
        return None


def clean_name(name: str | None) -> str:
    """Return a name as it may be shown: one line of at most 80 characters that leave the text around it alone."""
    visible = "".join(
        " " if character.isspace() else character
        for character in (name or "")[: 10 * MAX_NAME]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    return " ".join(visible.split())[:MAX_NAME].strip() or "a client without a name"
