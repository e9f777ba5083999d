"""An identity provider on loopback: an OpenID issuer, and GitHub's three addresses.

Real are TLS, redirects, codes, PKCE, the client's secret, rotation of refresh tokens, signed id tokens. All who
come are logged in at once, as the person that a test names. What it says of them, and if it answers, a test changes.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import html
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from starlette.requests import Request

CLIENT_ID = "gateway-at-provider"
CLIENT_SECRET = "s3cret-of-the-gateway"
_START_SECONDS = 90.0


class FakeIdentityProvider:
    """Serves in a thread of its own; a context manager.

    Args:
        certificate: and `key`, files, for `localhost`.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.claims: dict[str, Any] = {"sub": "42", "email": "Ann@Example.org", "email_verified": True}
        """In id tokens, besides what each must have; those changed here are changed there."""
        self.userinfo: dict[str, Any] = {"sub": "42"}
        self.emails: Any = [
            {"email": "other@example.org", "primary": False, "verified": True},
            {"email": "ann@example.org", "primary": True, "verified": True},
        ]
        """GitHub's answer."""
        self.discovery: dict[str, Any] = {}
        """What is changed in the discovery document."""
        self.answer: dict[str, Any] = {"expires_in": 86_400}
        """What is changed in answers of the token endpoint; None leaves a field out."""
        self.status = 200
        """Of the token endpoint, the userinfo endpoint and the list of addresses."""
        self.error: str | None = None
        """What the token endpoint answers instead of tokens."""
        self.shows_page = False
        """Whether people who come must press a button first."""
        self.iss: str | None = None
        """What is said of who sends people back (RFC 9207)."""
        self.waits_for: threading.Event | None = None
        """Until when the token endpoint answers nobody."""
        self.denies = False
        """Whether people who come are sent back with `access_denied`."""
        self.signing_key = _made_once()
        self.sign: Callable[[dict[str, Any]], str] = self._sign
        """Makes id tokens."""
        self.refresh = True
        """Whether it gives refresh tokens."""
        self.rotates = True
        """Whether one is good once, and replaced."""
        self.asked: list[dict[str, str]] = []
        """Parameters of authorization and token requests."""
        self.called: list[str] = []
        self.given: list[str] = []
        """All tokens."""
        self._key = self.signing_key
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_tokens: set[str] = set()
        self._access_tokens: set[str] = set()
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
                host="127.0.0.1",
                port=self.port,
                log_level="error",
                lifespan="off",
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self._server.started, "the provider listens", within=_START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: from now on connections are refused."""
        self._server.should_exit = True
        self._thread.join()

    def end_sessions(self) -> None:
        """Let no token count any longer, as when an account is closed."""
        self._refresh_tokens.clear()
        self._access_tokens.clear()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discover),
                Route("/keys", self._keys),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/userinfo", self._tell_userinfo),
                Route("/login/oauth/authorize", self._authorize),
                Route("/login/oauth/access_token", self._token, methods=["POST"]),
                Route("/user/emails", self._tell_emails),
            ]
        )

    async def _discover(self, request: Request) -> Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "email", "offline_access"],
        }
        return JSONResponse(document | self.discovery)

    async def _keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        if self.denies:
            answer = {"error": "access_denied"}
        else:
            answer = {"code": secrets.token_urlsafe(8)}
            self._codes[answer["code"]] = asked
        if self.iss is not None:
            answer["iss"] = self.iss
        back = f"{asked['redirect_uri']}?{urlencode(answer | {'state': asked['state']})}"
        if self.shows_page:
            return HTMLResponse(f'<a href="{html.escape(back)}">Continue</a>')
        return RedirectResponse(back, status_code=302)

    async def _token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.asked.append(form)
        self.called.append(request.url.path)
        if self.waits_for is not None:
            await asyncio.to_thread(self.waits_for.wait, _START_SECONDS)
        if self.status != 200:
            return Response("out of order", self.status)
        if not _is_the_gateway(request, form):
            return JSONResponse({"error": "invalid_client"}, 401)
        if self.error is not None:
            return JSONResponse({"error": self.error}, 400)
        repeated: dict[str, Any] = {}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self._refresh_tokens:
                return JSONResponse({"error": "invalid_grant"}, 400)
            if self.rotates:
                self._refresh_tokens.remove(form["refresh_token"])
        else:
            asked = self._codes.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
                return JSONResponse({"error": "invalid_grant"}, 400)
            repeated = {"nonce": asked.get("nonce")}
        return JSONResponse(self._tokens(repeated, github=request.url.path != "/token"))

    def _tokens(self, repeated: dict[str, Any], *, github: bool) -> dict[str, Any]:
        access = secrets.token_urlsafe(8)
        self._access_tokens.add(access)
        self.given.append(access)
        answer: dict[str, Any] = {"access_token": access, "token_type": "bearer"}
        if github:
            answer |= {"scope": "user:email"}
        else:
            now = int(time.time())
            claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300} | repeated | self.claims
            present = {name: value for name, value in claims.items() if value is not None}
            answer |= {"scope": "openid email", "id_token": self.sign(present)}
            if self.refresh and (self.rotates or "nonce" in repeated):
                answer["refresh_token"] = secrets.token_urlsafe(8)
                self._refresh_tokens.add(answer["refresh_token"])
                self.given.append(answer["refresh_token"])
            answer |= self.answer
        return {name: value for name, value in answer.items() if value is not None}

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.signing_key)

    async def _tell_userinfo(self, request: Request) -> Response:
        return self._tell(request, self.userinfo)

    async def _tell_emails(self, request: Request) -> Response:
        return self._tell(request, self.emails)

    def _tell(self, request: Request, what: Any) -> Response:
        self.called.append(request.url.path)
        if self.status != 200:
            return Response("out of order", self.status)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._access_tokens:
            return JSONResponse({"message": "Bad credentials"}, 401)
        return JSONResponse(what)


@functools.cache
def _made_once() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one"})


def _is_the_gateway(request: Request, form: dict[str, str]) -> bool:
    basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    if request.headers.get("authorization") == f"Basic {basic}":
        return True
    return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
