"""A client that asks as a recorded shape says, from the gateway's URL to the end of its login."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import httpx

from support.gateway.authorization import answer_of, proof
from support.gateway.client_keys import ClientKey, signed
from support.gateway.client_requests import basic
from support.gateway.person import Person

if TYPE_CHECKING:
    from support.clients.front import Front
    from support.clients.recorded import Shape

_SECONDS = 60.0
_PROTOCOL = "2025-06-18"
KEY = ClientKey("cimd-20260428030119")
"""Of those that sign."""


class RecordedClient:
    """What a client of that shape does; a context manager. What it must not be refused it asserts itself."""

    def __init__(self, shape: Shape, front: Front) -> None:
        self.shape = shape
        self._front = front
        self._http = httpx.Client(
            verify=front.trust(), trust_env=False, timeout=_SECONDS, headers={"User-Agent": shape.user_agent}
        )
        self._server: dict[str, Any] = {}
        self._client: dict[str, Any] = {}
        self._resource = ""
        self._tokens: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def discover(self) -> None:
        """Learn from the URL alone where to go."""
        challenge = self._http.post(self._front.url_to_paste, json={}).headers["www-authenticate"]
        where = challenge.partition('resource_metadata="')[2].partition('"')[0]
        resource = self._http.get(where).json()
        self._resource = resource["resource"]
        (issuer,) = resource["authorization_servers"]
        self._server = self._http.get(f"{issuer}/.well-known/oauth-authorization-server").json()
        assert self._server["issuer"] == issuer

    def introduce_itself(self) -> None:
        """Register, or present a document."""
        if self.shape.document:
            assert self._server["client_id_metadata_document_supported"] is True
            self._client = {"client_id": self.shape.document}
            return
        answer = self._http.post(self._server["registration_endpoint"], json=self.shape.metadata)
        assert answer.status_code == 201, answer.text
        self._client = answer.json()
        assert self.shape.redirect_uri in self._client["redirect_uris"]

    def ask(self) -> None:
        """Send the person to log in, and exchange what their browser brings."""
        state, pkce = secrets.token_urlsafe(), proof()
        asked = {
            "response_type": "code",
            "client_id": self._client["client_id"],
            "redirect_uri": self.shape.redirect_uri,
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
            "state": state,
            "resource": self._resource,
            **({"scope": self.shape.scope} if self.shape.scope else {}),
        }
        person = Person(self._front.trust())
        asyncio.run(person.visit(f"{self._server['authorization_endpoint']}?{urlencode(asked)}"))
        arrived, _, _ = person.arrived.partition("?")
        assert arrived == self.shape.redirect_uri
        brought = answer_of(person.arrived)
        assert (brought["state"], brought["iss"]) == (state, self._server["issuer"])
        self._take(
            self._post(
                "token_endpoint",
                grant_type="authorization_code",
                code=brought["code"],
                code_verifier=pkce.verifier,
                redirect_uri=self.shape.redirect_uri,
                resource=self._resource,
            )
        )

    def tools(self) -> set[str]:
        """List the tools, in the protocol of chat services."""
        hello = {"protocolVersion": _PROTOCOL, "capabilities": {}, "clientInfo": {"name": "recorded", "version": "1"}}
        self._speak("initialize", hello)
        return {tool["name"] for tool in self._speak("tools/list", {})["tools"]}

    def refresh(self) -> None:
        """Exchange the refresh token."""
        before = self._tokens["refresh_token"]
        answer = self._post(
            "token_endpoint", grant_type="refresh_token", refresh_token=before, resource=self._resource
        )
        self._take(answer)
        assert self._tokens["refresh_token"] != before

    def revoke(self) -> None:
        """End the login."""
        hint = "refresh_token"
        answer = self._post("revocation_endpoint", token=self._tokens[hint], token_type_hint=hint)
        assert answer.status_code == 200, answer.text

    def is_refused(self) -> bool:
        """Tell whether its access token is of no use any more."""
        return self._send("tools/list", {}).status_code == 401

    def _take(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "Bearer"
        self._tokens = answer.json()

    def _post(self, endpoint: str, **form: str) -> httpx.Response:
        url = self._server[endpoint]
        method = self._client.get("token_endpoint_auth_method", "none")
        name, secret = self._client["client_id"], self._client.get("client_secret", "")
        if self.shape.signs:
            assert "private_key_jwt" in self._server["token_endpoint_auth_methods_supported"]
            form |= signed(KEY.assertion(name, self._server["token_endpoint"]))
        elif method == "client_secret_basic":
            return self._http.post(url, data=form, headers=basic(name, secret))
        elif method == "client_secret_post":
            form |= {"client_id": name, "client_secret": secret}
        else:
            form |= {"client_id": name}
        return self._http.post(url, data=form)

    def _send(self, method: str, params: dict[str, Any]) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self._tokens['access_token']}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _PROTOCOL,
        }
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self._http.post(self._front.url_to_paste, json=asked, headers=headers)

    def _speak(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = self._send(method, params)
        assert answer.status_code == 200, answer.text
        (result,) = (
            httpx.Response(200, text=line.removeprefix("data: ")).json()["result"]
            for line in answer.text.splitlines()
            if line.startswith("data: ") and '"result"' in line
        )
        found: dict[str, Any] = result
        return found
