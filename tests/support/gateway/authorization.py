"""The authorization server alone, in this process: its routes, its database, and a person who answers at once."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from argon2 import PasswordHasher
from starlette.applications import Starlette

from opencode_gateway.capabilities import CAPABILITIES, Capability
from opencode_gateway.configuration import MCP_PATH, Configuration
from opencode_gateway.oauth import enrolment
from opencode_gateway.oauth.provider import Provider
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from support.gateway import person

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from opencode_gateway.audit import AuditEvent
    from opencode_gateway.oauth.documents import ClientDocuments
    from opencode_gateway.refusals import Refusal

PUBLIC_URL = "https://relay.example.org"
CALLBACK = person.CALLBACK
CHEAP_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
"""A real one, quickly made."""


class Clock:
    """Starts now and is moved by tests alone: the SDK compares with the machine's own clock besides."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Proof:
    """PKCE."""

    verifier: str
    challenge: str


def proof() -> Proof:
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return Proof(verifier, base64.urlsafe_b64encode(digest).decode().rstrip("="))


def answer_of(location: str) -> dict[str, str]:
    """Return the parameters that a redirect carries, each of which must be there once."""
    parameters = parse_qs(urlsplit(location).query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in parameters.values()), location
    return {name: values[0] for name, values in parameters.items()}


class AuthorizationServer:
    """One gateway's authorization server with one user, `ann`. Made again on the same directory, it is a restart."""

    def __init__(self, data_dir: Path, *, documents: ClientDocuments | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.configuration = Configuration.model_validate(
            {"public_url": PUBLIC_URL, "data_dir": data_dir, **settings}
        )
        self.store = Store(data_dir / FILE_NAME)
        self.users = Users(data_dir / "users.json")
        if "ann" not in self.users.load():
            self.users.add("ann", CHEAP_HASH, CAPABILITIES)
        self.events: list[AuditEvent] = []
        self.refusals: list[Refusal] = []
        self.provider = Provider(
            self.configuration,
            self.store,
            self.users,
            documents=documents,
            on_event=self.events.append,
            on_refusal=self.refusals.append,
            clock=self.clock,
        )
        self.app = Starlette(routes=self.provider.get_routes(MCP_PATH))
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=self.configuration.public_url, follow_redirects=False
        )

    def open_window(self, minutes: int = 10) -> None:
        enrolment.open_window(self.store, minutes=minutes, now=self.clock())

    async def refuses_to_register(self, words: str, **metadata: Any) -> None:
        """Have it register a client; look that it does not, and says these words."""
        answer = await self.register(**metadata)
        assert answer.status_code == 400
        assert words in answer.json()["error_description"]

    async def register(self, **metadata: Any) -> httpx.Response:
        return await self.http.post("/register", json={"redirect_uris": [CALLBACK], **metadata})

    async def registered(self, **metadata: Any) -> str:
        """Return the id of a new client, for which the window is opened."""
        self.open_window()
        answer = await self.register(**metadata)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["client_id"])

    async def authorize(self, client_id: str, challenge: str, /, **changed: str | None) -> httpx.Response:
        """Ask; a parameter that is None is left out."""
        asked: dict[str, str | None] = {
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": "st&te",
            "resource": self.configuration.resource,
        }
        asked.update(changed)
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return await self.http.get(f"/authorize?{query}")

    def consent(
        self, login_page: str, login: str = "ann", capabilities: Iterable[Capability] = CAPABILITIES
    ) -> dict[str, str]:
        """Say yes, as the pages do for a person who logged in, and return what the client is sent."""
        pending = self.provider.requests.read(answer_of(login_page)["request"])
        assert pending is not None
        return answer_of(self.provider.issue_code(pending, login, capabilities))

    async def code(self, client_id: str, challenge: str, /, **changed: str | None) -> str:
        asked = await self.authorize(client_id, challenge, **changed)
        assert asked.status_code == 302, asked.text
        return self.consent(asked.headers["location"])["code"]

    async def exchange(self, client_id: str, code: str, verifier: str, **changed: str) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": CALLBACK,
            "resource": self.configuration.resource,
        }
        return await self.http.post("/token", data={**form, **changed})

    async def refresh(self, client_id: str, refresh_token: str, **changed: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": refresh_token}
        return await self.http.post("/token", data={**form, **changed})

    async def tokens(self, client_id: str) -> dict[str, Any]:
        """Go the whole way once."""
        pkce = proof()
        code = await self.code(client_id, pkce.challenge)
        answer = await self.exchange(client_id, code, pkce.verifier)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def is_good(self, access_token: str) -> bool:
        return await self.provider.verify_token(access_token) is not None

    async def close(self) -> None:
        await self.http.aclose()
        self.store.close()
