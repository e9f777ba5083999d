"""What the tests of client authentication share: token requests, with or without what says whose they are."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from support.gateway.authorization import CALLBACK, AuthorizationServer, proof

if TYPE_CHECKING:
    import httpx


def basic(client_id: str, secret: str) -> dict[str, str]:
    """Return the header of HTTP Basic, as RFC 6749, 2.3.1, wants it."""
    encoded = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


async def ask(
    server: AuthorizationServer, form: dict[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    return await server.http.post("/token", data=form, headers=headers or {})


async def form_of(server: AuthorizationServer, client_id: str, callback: str = CALLBACK) -> dict[str, str]:
    """Return what exchanges a fresh code of this client's, without anything that says who asks."""
    pkce = proof()
    return {
        "grant_type": "authorization_code",
        "code": await server.code(client_id, pkce.challenge, redirect_uri=callback),
        "code_verifier": pkce.verifier,
        "redirect_uri": callback,
        "resource": server.configuration.resource,
    }


def is_refused(answer: httpx.Response, *words: str) -> bool:
    """Tell whether a client is told that it is not the one, why, and what its person can do."""
    said = answer.json()
    return (
        (answer.status_code, said["error"]) == (401, "invalid_client")
        and answer.headers["cache-control"] == "no-store"
        and "clients allow" in said["error_description"]
        and all(word in said["error_description"] for word in words)
    )
