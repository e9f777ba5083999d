"""Client-id documents as chat services publish them. Recorded: nothing here was made up.

What the gateway's tests serve of them is moved to the tests' own host, as a document is about its own address.
"""

from __future__ import annotations

from typing import Any, Final

CHATGPT: Final[dict[str, Any]] = {
    "client_id": "https://chatgpt.com/oauth/IbUR3zxyNQ16/client.json",
    "client_uri": "https://chatgpt.com/",
    "redirect_uris": ["https://chatgpt.com/connector/oauth/IbUR3zxyNQ16"],
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "client_name": "ChatGPT",
    "token_endpoint_auth_signing_alg": "RS256",
    "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
}
"""Fetched by others on 2026-08-06: https://github.com/cloudflare/workers-oauth-provider/issues/293.

Its assertions have `{issuer}/token`, as a string, for audience: https://github.com/PrefectHQ/fastmcp/issues/4789."""

CHATGPT_BEFORE: Final[dict[str, Any]] = {
    name: value for name, value in CHATGPT.items() if name != "token_endpoint_auth_methods_supported"
}
"""In May 2026 the same without what else it can do: https://github.com/Altinity/altinity-mcp/issues/118."""


def moved(document: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return a document of ChatGPT's with its own addresses at `origin`; where answers go stays."""
    return document | {
        name: document[name].replace("https://chatgpt.com", origin) for name in ("client_id", "jwks_uri")
    }
