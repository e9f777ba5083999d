"""Requests on their way through the pages, and requests that are too long or not in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth.requests import PendingRequests
from support.gateway.authorization import AuthorizationServer, answer_of, proof

if TYPE_CHECKING:
    import httpx


def assert_only_the_person_is_told(answer: httpx.Response, words: str) -> None:
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert words in answer.json()["error_description"]


# Requests on their way through the pages


async def test_a_request_that_was_changed_or_signed_elsewhere_is_not_read(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)
    signed = answer_of(asked.headers["location"])["request"]
    pending = server.provider.requests.read(signed)
    assert pending is not None

    middle = len(signed) // 2
    changed = signed[:middle] + ("A" if signed[middle] != "A" else "B") + signed[middle + 1 :]
    assert server.provider.requests.read(changed) is None
    assert server.provider.requests.read("A" + signed) is None
    assert server.provider.requests.read(PendingRequests(b"k" * 32).sign(pending)) is None
    assert server.provider.requests.read(signed * 100) is None


async def test_a_request_is_over_after_ten_minutes(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)
    signed = answer_of(asked.headers["location"])["request"]

    server.clock.advance(599)
    assert server.provider.requests.read(signed) is not None
    server.clock.advance(2)
    assert server.provider.requests.read(signed) is None


# Input that is too long, or twice there


@pytest.mark.parametrize(
    ("name", "longest"), [("state", 2048), ("scope", 4096), ("client_id", 1536), ("redirect_uri", 512)]
)
async def test_a_parameter_that_is_too_long_is_refused(server: AuthorizationServer, name: str, longest: int) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, proof().challenge, **{name: "x" * (longest + 1)})

    assert_only_the_person_is_told(asked, "too long")


async def test_the_longest_state_comes_back_whole(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    state = "%&+/=?é" * 292 + "1234"
    assert len(state) == 2048

    asked = await server.authorize(client_id, proof().challenge, state=state)

    assert server.consent(asked.headers["location"])["state"] == state


async def test_a_parameter_that_is_there_twice_is_refused(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)

    asked = await server.http.get(f"/authorize?client_id={client_id}&client_id=other")
    given = await server.http.post("/token", data={"client_id": [client_id, "other"], "code": code})

    assert_only_the_person_is_told(asked, "repeated")
    assert (given.status_code, given.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(("path", "limit"), [("/token", 16), ("/revoke", 16), ("/authorize", 16), ("/register", 32)])
async def test_a_body_that_is_too_large_is_not_read(server: AuthorizationServer, path: str, limit: int) -> None:
    answer = await server.http.post(path, content=b"x" * (limit * 1024 + 1))

    assert answer.status_code == 413


async def test_a_browser_is_shown_a_page_in_which_nothing_of_the_request_is_markup(
    server: AuthorizationServer,
) -> None:
    asked = await server.http.get("/authorize?client_id=<script>", headers={"Accept": "text/html"})

    assert asked.status_code == 400
    assert asked.headers["content-type"].startswith("text/html")
    assert "opencode-gateway clients allow" in asked.text
    assert "<script>" not in asked.text


async def test_while_our_own_files_do_not_serve_a_browser_is_shown_a_page_and_a_program_is_told(
    server: AuthorizationServer,
) -> None:
    asked = f"/authorize?client_id={await server.registered()}"
    with server.store.transaction() as db:
        db.execute("DROP TABLE clients")

    shown = await server.http.get(asked, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    told = await server.http.get(asked, headers={"Accept": "*/*"})

    assert (shown.status_code, told.status_code) == (503, 503)
    assert shown.headers["content-type"].startswith("text/html")
    assert "start again from your chat client" in shown.text
    assert told.json()["error"] == "temporarily_unavailable"
