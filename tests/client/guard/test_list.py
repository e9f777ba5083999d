"""Only what is on the list is let through, of both generations' real APIs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from client.guard.guarded import refusal
from opencode_connected.guard.apis import api_of
from opencode_connected.guard.gate import DOCUMENT, HEALTH
from support.waiting import eventually

if TYPE_CHECKING:
    from client.guard.guarded import Agent, Guarded

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def routes_of(agent: Agent) -> set[tuple[str, str]]:
    """Return what the real agent says that it can do, ids as `{…}`."""
    where = "/openapi.json" if agent.generation == 2 else "/doc"
    with agent.straight() as client:
        told: dict[str, Any] = client.get(where).raise_for_status().json()
    found = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    assert len(found) > 90
    return found


def shape(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


async def test_every_route_of_the_real_api_that_is_not_on_the_list_is_refused(agent: Agent, guard: Guarded) -> None:
    listed = {(route.method, shape(route.path)) for route in api_of(agent.generation).routes}
    others = {
        (method, path)
        for method, path in routes_of(agent)
        if (method, shape(path)) not in listed and (method, path) != ("GET", HEALTH)
    }
    assert len(others) > 80
    for method, path in sorted(others):
        asked = path.replace("*", "etc/passwd")
        answer = await guard.client.request(method, re.sub(r"\{\w+\}", "ses_abc", asked), json={})
        assert "does not let" in refusal(answer), (method, path)


async def test_every_route_on_the_list_is_one_of_the_real_api(agent: Agent) -> None:
    real = {(method, shape(path)) for method, path in routes_of(agent)} | {("GET", "/openapi.json")}
    listed = {(route.method, shape(route.path)) for route in api_of(agent.generation).routes}
    assert listed <= real


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE", "PROPFIND"])
async def test_other_methods_are_refused(agent: Agent, guard: Guarded, method: str) -> None:
    for route in api_of(agent.generation).routes:
        answer = await guard.client.request(method, route.path.replace("{", "").replace("}", ""))
        assert answer.status_code == 403


async def test_the_document_says_what_is_let_through(agent: Agent, guard: Guarded) -> None:
    told = (await guard.client.get(DOCUMENT)).json()
    assert told["generation"] == agent.generation
    assert told["rights"] == ["approve", "drive", "observe"]
    assert told["directories"] == [{"path": str(agent.directory), "name": agent.directory.name, "opened": True}]
    expected = {"health", "sessions", "session", "messages", "events", "status", "asks", "create", "prompt", "abort"}
    expected |= {"diff", "rename", "compact", "fork", "undo"}
    newer = {"agent", "model", "inbox", "openapi"}
    assert expected | ({"screen", "todo"} if agent.generation == 1 else newer) | {"reply"} <= set(told["verbs"])


async def test_health_is_the_agents(agent: Agent, guard: Guarded) -> None:
    answer = await guard.client.get(HEALTH)
    assert (answer.status_code, answer.json()) == (200, {"healthy": True, "version": agent.target.version})


async def test_what_the_server_asks_today_is_answered_by_the_real_agent(agent: Agent, guard: Guarded) -> None:
    at = {"location[directory]" if agent.generation == 2 else "directory": str(agent.directory)}
    session = agent.session(agent.directory)
    paths = {
        1: ["/path", "/session/status", "/permission", "/question", "/vcs", "/vcs/status", "/agent", "/command"],
        2: ["/api/info", "/api/session/active", "/openapi.json"],
    }[agent.generation]
    for path in paths:
        answer = await guard.client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["content-type"].startswith("application/json")
    located = {
        1: ["/agent", "/command", "/config/providers", "/permission", "/vcs/status", "/vcs/diff?mode=git&context=3"],
        2: [
            "/api/agent",
            "/api/command",
            "/api/model",
            "/api/vcs",
            "/api/vcs/status",
            "/api/vcs/diff?mode=working&context=3",
        ],
    }
    for path in located[agent.generation]:
        url = httpx.URL(path)
        answer = await guard.client.get(url.path, params={**url.params, **at})
        assert answer.status_code == 200, (path, answer.text)
    more = {1: ["/todo", "/diff?messageID=msg_none"], 2: ["/inbox", "/permission", "/form", "/diff?context=3"]}
    for below in ["", "/message", *more[agent.generation]]:
        answer = await guard.client.get(agent.of(session) + below)
        assert answer.status_code == 200, (below, answer.text)
    renamed = await guard.client.patch(agent.of(session), json={"title": "from afar"})
    assert renamed.status_code in (200, 204), renamed.text
    with agent.straight() as client:
        told = client.get(agent.of(session)).json()
    assert (told["data"] if agent.generation == 2 else told)["title"] == "from afar"


async def test_models_agents_and_commands_come_without_keys_and_prompts(agent2: Agent, guard: Guarded) -> None:
    at = {"location[directory]": str(agent2.directory)}
    with agent2.straight() as client:
        # It answers before it has read what models there are.
        eventually(lambda: "apiKey" in client.get("/api/model", params=at).text, "OpenCode 2 knows its models")
    if (await guard.client.get(DOCUMENT)).json()["generation"] == 2:
        for path in ("/api/model", "/api/agent", "/api/command"):
            told = (await guard.client.get(path, params=at)).json()
            assert told["data"]
            assert not {"settings", "headers", "body", "request", "permissions", "system", "template"} & {
                key for entry in told["data"] for key in entry
            }
            assert "apiKey" not in str(told)
    else:
        commands = (await guard.client.get("/command")).json()
        assert commands
        assert all("template" not in command for command in commands)
        providers = (await guard.client.get("/config/providers")).json()
        assert {"id": "fake", "name": "Fake", "models": {"fake": {"name": "fake"}}} in providers["providers"]
        assert providers.keys() == {"providers"}
        assert "apiKey" not in str(providers)


async def test_an_answer_has_no_headers_of_the_agents(agent: Agent, guard: Guarded) -> None:
    with agent.straight() as client:
        straight = client.get(agent.of(agent.session(agent.directory)))
    answer = await guard.client.get(agent.of(agent.session(agent.directory)))
    assert set(answer.headers) <= {"content-type", "content-length", "date", "server"}
    assert straight.status_code == answer.status_code == 200
