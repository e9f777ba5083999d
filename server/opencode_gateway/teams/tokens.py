"""What becomes of the tokens that FastMCP's proxy hands out: each stands for a session that can be ended.

A token may do what was granted, as far as the list says so at its use. Refresh tokens are rotated with a grace; one
that is shown after it, or a code that is shown twice, ends its session.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastmcp.server.auth import AccessToken
from fastmcp.server.auth.oauth_proxy import OAuthProxy
from joserfc.errors import JoseError
from mcp.server.auth.provider import TokenError

from opencode_gateway.audit import Event
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth.rounds import ROUND_SECONDS
from opencode_gateway.store import hashed
from opencode_gateway.teams import sessions
from opencode_gateway.teams.people import PersonRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmcp.server.auth.oauth_proxy.models import UpstreamTokenSet
    from mcp.server.auth.provider import AuthorizationCode, RefreshToken
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

    from opencode_gateway.store import Store
    from opencode_gateway.teams.people import People
    from opencode_gateway.teams.upstream import Identity

MAX_KEPT: Final = 1000
"""Of tokens that were replaced, and of codes that were used: what goes beyond has no grace, or ends no session."""


@dataclass(frozen=True)
class _Rotated:
    """A refresh token that was replaced, and by what. In memory alone: after a restart there is no grace."""

    until: float
    replaced: RefreshToken
    tokens: OAuthToken


@dataclass(frozen=True)
class _Redeemed:
    """A code that was exchanged, until it would have ended anyway, and whose session it began."""

    until: float
    session: str
    client_id: str | None


class TeamTokens(OAuthProxy):
    """The proxy's tokens.

    Args:
        store: has the sessions.
        identity: where people log in.
        people: the list.
        resource: what tokens are for.
        on_event: hears of sessions that end.
        clock: seconds since the epoch.
        proxy: what FastMCP's class takes.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        people: People,
        *,
        resource: str,
        on_event: Callable[[Event], None],
        clock: Callable[[], float],
        **proxy: Any,
    ) -> None:
        self.resource = resource
        self._store = store
        self._identity = identity
        self._people = people
        self._on_event = on_event
        self._clock = clock
        self._rotated: dict[bytes, _Rotated] = {}
        self._redeemed: dict[bytes, _Redeemed] = {}
        super().__init__(token_verifier=sessions.BySession(store, people), **proxy)

    async def _extract_upstream_claims(self, idp_tokens: dict[str, Any]) -> dict[str, Any]:
        return {"session": idp_tokens["session"]}

    def _get_verification_token(self, upstream_token_set: UpstreamTokenSet) -> str:
        data = upstream_token_set.raw_token_data
        return f"{data['session']} {data['person']}"

    def _uses_alternate_verification(self) -> bool:
        return True

    async def load_access_token(self, token: str) -> AccessToken | None:
        """Return what a token may do now: what was granted, as far as the person still has it.

        Raises:
            ProviderFailed: their session at the provider must be renewed, and cannot be now.
        """
        found = await super().load_access_token(token)
        # The proxy lets a session go on that it could not renew.
        if found is None or found.expires_at is None or found.expires_at <= time.time():
            return None
        login, claims = found.subject or "", found.claims or {}
        may = self._people.capabilities(login)
        return AccessToken(
            token=token,
            client_id=found.client_id,
            scopes=[capability for capability in CAPABILITIES if capability in found.scopes and capability in may],
            expires_at=found.expires_at,
            resource=self.resource,
            subject=login,
            claims={
                "login": login,
                "client_name": claims["client_name"],
                "kind": self._identity.kind,
                "session": claims["session"],
            },
        )

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """Return a code that was not used yet; one that was ends what it gave (OAuth 2.1, 4.1.3)."""
        found = await super().load_authorization_code(client, authorization_code)
        now = time.time()
        self._redeemed = {code: used for code, used in self._redeemed.items() if now <= used.until}
        used = self._redeemed.get(hashed(authorization_code))
        if used is not None and used.client_id == client.client_id:
            self._end(used.session, "code-replayed")
        return found

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Hand out the tokens of a session."""
        tokens = await self._told(await super().exchange_authorization_code(client, authorization_code))
        session = self._session_of(tokens.access_token, "access", client.client_id)
        if session is not None and len(self._redeemed) < MAX_KEPT:
            self._redeemed[hashed(authorization_code.code)] = _Redeemed(
                authorization_code.expires_at, session, client.client_id
            )
        return tokens

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        """Return a refresh token that is good or was replaced within the grace; an older one ends its session."""
        found = await super().load_refresh_token(client, refresh_token)
        if found is not None:
            return found
        kept = self._rotated.get(hashed(refresh_token))
        if kept is not None and kept.replaced.client_id == client.client_id and self._clock() <= kept.until:
            return kept.replaced
        self._end_of(refresh_token, client.client_id or "", "refresh-token-replayed")
        return None

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Rotate. Two windows of one client that do so within the grace get the same new tokens."""
        key = hashed(refresh_token.token)
        async with self._get_refresh_lock(key.hex()):
            now = self._clock()
            self._rotated = {old: kept for old, kept in self._rotated.items() if now <= kept.until}
            if key in self._rotated:
                return await self._told(self._rotated[key].tokens)
            session_id = self._session_of(refresh_token.token, "refresh", client.client_id)
            session = sessions.find(self._store, session_id) if session_id else None
            if session is None or not self._people.capabilities(session.login):
                raise TokenError("invalid_grant", "this session was ended, or its person may no longer log in")
            try:
                tokens = await super().exchange_refresh_token(client, refresh_token, scopes)
            except PersonRefused as refusal:
                self._end(session.id, "person-refused")
                raise TokenError("invalid_grant", str(refusal)) from refusal
            sessions.renew(self._store, session.id, now)
            if len(self._rotated) < MAX_KEPT:
                self._rotated[key] = _Rotated(now + ROUND_SECONDS, refresh_token, tokens)
        return await self._told(tokens)

    async def revoke_token(self, token: Any) -> None:
        """End the session that a token is of."""
        await self.revoke(token.token, token.client_id)

    async def revoke(self, token: str, client_id: str) -> None:
        """End the session that a token of this client's is of; any other token is passed over (RFC 7009, 2.2)."""
        self._end_of(token, client_id, "revoked")

    def _end_of(self, token: str, client_id: str, why: str) -> None:
        found = self._session_of(token, "refresh", client_id) or self._session_of(token, "access", client_id)
        if found is not None:
            self._end(found, why)

    def _end(self, session_id: str, why: str) -> None:
        session = sessions.find(self._store, session_id)
        if session is not None:
            sessions.end(self._store, session.id)
            self._on_event(
                Event(
                    event="session-ended",
                    outcome=why,
                    login=session.login,
                    client_id=session.client_id,
                    client_name=session.client_name,
                )
            )

    def _session_of(self, token: str, use: str, client_id: str | None) -> str | None:
        """Return the session that a token of ours is of, whether it was ended or not."""
        try:
            payload = self.jwt_issuer.verify_token(token, expected_token_use=use)
            return str(payload["upstream_claims"]["session"]) if payload["client_id"] == client_id else None
        except (JoseError, ValueError, KeyError, TypeError):
            return None

    async def _told(self, tokens: OAuthToken) -> OAuthToken:
        """Return new tokens with the scopes that they have now, which the client must be told (RFC 6749, 5.1)."""
        found = await self.load_access_token(tokens.access_token)
        if found is None:
            raise TokenError("invalid_grant", "this session was ended, or its person may no longer log in")
        return tokens.model_copy(update={"scope": " ".join(found.scopes)})
