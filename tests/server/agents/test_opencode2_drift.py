"""Other versions of OpenCode 2: paths and keys have moved, or something is missing.

`golden/opencode2-openapi.json` is what 2.0.15 answers at `/openapi.json`: of it the operations that are used here,
without what they answer.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from opencode_fleet.agents.opencode2 import OpenCode2
from opencode_fleet.agents.opencode2.operations import KNOWN, Operations
from opencode_fleet.errors import BadAnswer, Forbidden, Refused
from opencode_fleet.model import Permission, Prompt, Question
from support.opencodes.connected import VERBS, client_for, guard_document, opencode2_behind
from support.opencodes.fake_opencode2 import FakeOpenCode2

if TYPE_CHECKING:
    from support.opencodes.opencode2 import Service2

Document = dict[str, Any]
RECORDED: Document = json.loads(
    (Path(__file__).parents[1] / "golden" / "opencode2-openapi.json").read_text(encoding="utf-8")
)
OPENAPI = "GET /openapi.json"
ASK = Permission(id="per_1", session_id="ses_1", action="shell")
REPLY = "/api/session/{sessionID}/permission/{requestID}/reply"
PROMPT = "/api/session/{sessionID}/prompt"
GUARD = guard_document({"/home/ann/api": "laptop-api"}, version="2.9.1")


@pytest.fixture
def document() -> Document:
    """The recorded one, to be altered."""
    return copy.deepcopy(RECORDED)


async def test_the_installed_version_has_all_operations_where_they_are_known_to_be(service2: Service2) -> None:
    with service2.client() as client:
        told = client.get("/openapi.json")
    assert told.status_code == httpx.codes.OK
    read, built_in = Operations.read("2.0.15", told.json()), Operations.built_in("2.0.15")
    assert all(read.find(known.name) == built_in.find(known.name) for known in KNOWN)


def test_the_recorded_document_is_what_is_built_in(document: Document) -> None:
    read, built_in = Operations.read("2.0.15", document), Operations.built_in("2.0.15")
    assert all(read.find(known.name) == built_in.find(known.name) for known in KNOWN)


async def test_an_operation_is_called_where_it_has_moved_to(document: Document) -> None:
    document["paths"]["/v3/sessions/{id}/asks/{ask}"] = document["paths"].pop(REPLY)
    fake = FakeOpenCode2({OPENAPI: document, "POST /v3/sessions/ses_1/asks/per_1": (204, "")})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.reply(ASK, "once", None)
    assert fake.bodies("POST /v3/sessions/ses_1/asks/per_1") == [{"decision": "once"}]


async def test_a_key_is_called_as_the_version_calls_it(document: Document) -> None:
    schema = _body(document, REPLY)
    schema["properties"]["reply"] = schema["properties"].pop("decision")
    fake = FakeOpenCode2({OPENAPI: document, "POST /api/session/ses_1/permission/per_1/reply": (204, "")})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.reply(ASK, "reject", "a reason that would be lost")
    assert fake.bodies("POST /api/session/ses_1/permission/per_1/reply") == [{"reply": "reject"}]


async def test_keys_are_found_in_a_schema_of_its_own(document: Document) -> None:
    schema = _body(document, PROMPT)
    document["components"]["schemas"]["Prompt"] = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"$ref": "#/components/schemas/Prompt"}, {"type": "null"}]
    answer = {"data": {"id": "msg_1", "payload": {"text": "hello"}}}
    fake = FakeOpenCode2({OPENAPI: document, "POST /api/session/ses_1/prompt": answer})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.prompt(Prompt("ses_1", "msg_1", "hello"))
    assert fake.bodies("POST /api/session/ses_1/prompt") == [{"id": "msg_1", "text": "hello", "delivery": "steer"}]


async def test_what_is_missing_is_refused_by_name_and_nothing_is_sent(document: Document) -> None:
    for gone in (PROMPT, "/api/session/{sessionID}/interrupt", "/api/session/{sessionID}/form/{formID}"):
        del document["paths"][gone]
    schema = _body(document, REPLY)
    schema["properties"]["verdict"] = schema["properties"].pop("decision")
    del document["paths"]["/api/session"]["post"]
    question = Question(id="frm_1", session_id="ses_1")
    async with FakeOpenCode2({OPENAPI: document}) as fake, opencode2_behind(fake.url, GUARD) as agent:
        for name, call in {
            "session.prompt": agent.prompt(Prompt("ses_1", "msg_1", "hello")),
            "session.interrupt": agent.interrupt("ses_1"),
            "session.form.cancel": agent.decline(question),
            "session.permission.reply": agent.reply(ASK, "once", None),
            "session.create": agent.create("/home/ann/api"),
        }.items():
            with pytest.raises(Refused, match=rf"OpenCode 2\.9\.1 there has no {name}"):
                await call
        assert [asked for asked, _ in fake.asked] == [OPENAPI]


async def test_a_version_without_forms_and_an_inbox_is_shown_without(document: Document) -> None:
    for gone in ("form", "inbox"):
        del document["paths"][f"/api/session/{{sessionID}}/{gone}"]
    fake = FakeOpenCode2(
        {
            OPENAPI: document,
            "GET /api/session/active": {"data": {"ses_1": {"type": "running"}}},
            "GET /api/session/ses_1/permission": {"data": []},
            "GET /api/session/ses_1/message": {"data": [], "cursor": {}},
        }
    )
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        runs = await agent.runs()
        record = await agent.turn("ses_1", "msg_1")
    assert set(runs.statuses) == {"ses_1"}
    assert runs.asks == []
    assert not record.is_queued


@pytest.mark.parametrize("gone", [known.name for known in KNOWN if known.is_vital])
async def test_a_version_of_which_nothing_can_be_shown_is_named(document: Document, gone: str) -> None:
    for methods in document["paths"].values():
        for method in [method for method, told in methods.items() if told["operationId"] == gone]:
            del methods[method]
    async with FakeOpenCode2({OPENAPI: document}) as fake:
        with pytest.raises(BadAnswer, match=rf"OpenCode 2\.9\.1 there cannot be driven: it has no {gone} "):
            async with opencode2_behind(fake.url, GUARD):
                pass


@pytest.mark.parametrize(
    "path",
    [
        "/api/session/{sessionID}/prompt/{other}",
        "/api/session/prompt",
        "/api/../{sessionID}",
        "//elsewhere.example/{sessionID}",
        "http://elsewhere.example/{sessionID}",
        "/api/session/{sessionID}?all=true",
        "/api/session/{sessionID}#",
        "/api/%2e%2e/{sessionID}",
        "/{sessionID}" + "/a" * 200,
    ],
)
async def test_an_odd_path_is_as_if_it_were_missing(document: Document, path: str) -> None:
    document["paths"][path] = document["paths"].pop(PROMPT)
    async with FakeOpenCode2({OPENAPI: document}) as fake, opencode2_behind(fake.url, GUARD) as agent:
        with pytest.raises(Refused, match=r"session\.prompt"):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))
        assert [asked for asked, _ in fake.asked] == [OPENAPI]


@pytest.mark.parametrize("method", ["get", "trace", "head", "x-odd"])
def test_an_operation_that_acts_is_not_taken_for_one_that_only_tells(document: Document, method: str) -> None:
    document["paths"][PROMPT] = {method: document["paths"][PROMPT]["post"]}
    with pytest.raises(Refused):
        Operations.read("2.9.1", document).find("session.prompt")


@pytest.mark.parametrize(
    "odd", [None, [], 7, "text", {"paths": []}, {"paths": {"/a": []}}, {"paths": {"/a": {"get": {"operationId": 7}}}}]
)
async def test_a_document_that_is_none_is_an_error_of_the_agent(odd: object) -> None:
    async with FakeOpenCode2({OPENAPI: odd}) as fake:
        with pytest.raises(BadAnswer):
            async with opencode2_behind(fake.url, GUARD):
                pass


def test_schemas_that_refer_to_each_other_come_to_an_end(document: Document) -> None:
    schema = _body(document, PROMPT)
    schema.clear()
    schema["$ref"] = "#/components/schemas/Circle"
    document["components"]["schemas"]["Circle"] = {
        "anyOf": [{"$ref": "#/components/schemas/Circle"}, {"$ref": "#/components/schemas/Circle"}]
    }
    with pytest.raises(Refused):
        Operations.read("2.9.1", document).find("session.prompt")


@pytest.mark.parametrize("answer", [(403, '{"data": {"message": "not let through"}}'), (404, "{}")])
async def test_without_the_document_the_operations_are_those_that_are_known(answer: tuple[int, str]) -> None:
    fake = FakeOpenCode2({OPENAPI: answer, "POST /api/session/ses_1/permission/per_1/reply": (204, "")})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        await agent.reply(ASK, "once", None)
    assert fake.bodies("POST /api/session/ses_1/permission/per_1/reply") == [{"decision": "once"}]


async def test_a_guard_that_does_not_know_the_document_is_not_asked_for_it() -> None:
    guard = guard_document(verbs=[verb for verb in VERBS if verb != "openapi"], version="2.9.1")
    async with FakeOpenCode2() as fake, opencode2_behind(fake.url, guard) as agent:
        assert agent.version == "2.9.1"
    assert fake.asked == []


async def test_a_version_that_is_known_is_not_asked_for_the_document() -> None:
    guard = guard_document(version="2.0.15")
    async with FakeOpenCode2() as fake, opencode2_behind(fake.url, guard) as agent:
        assert agent.version == "2.0.15"
    assert fake.asked == []


async def test_what_the_guard_does_not_know_is_refused_with_the_next_step() -> None:
    guard = guard_document(verbs=[verb for verb in VERBS if verb not in {"openapi", "prompt"}])
    async with FakeOpenCode2() as fake, opencode2_behind(fake.url, guard) as agent:
        with pytest.raises(Refused, match="update opencode-relay on that laptop"):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))
    assert fake.asked == []


async def test_a_guard_that_lets_nothing_be_seen_is_an_error_of_the_agent() -> None:
    async with FakeOpenCode2() as fake:
        with pytest.raises(BadAnswer, match="update opencode-relay on that laptop"):
            async with opencode2_behind(fake.url, guard_document(verbs=["health"])):
                pass


async def test_without_a_guard_nothing_is_connected_to() -> None:
    async with FakeOpenCode2() as fake:
        client = client_for(fake.url)
        try:
            with pytest.raises(BadAnswer, match="without a guard"):
                await OpenCode2.connect(client, None)
        finally:
            await client.aclose()
    assert fake.asked == []


async def test_a_refusal_of_the_guard_is_told_in_its_words() -> None:
    refusal = '{"name": "GuardRefused", "data": {"message": "add always to remote in config.toml"}}'
    fake = FakeOpenCode2({"POST /api/session/ses_1/permission/per_1/reply": (403, refusal)})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        with pytest.raises(Forbidden, match=r"add always to remote in config\.toml"):
            await agent.reply(ASK, "always", None)


def _body(document: Document, path: str) -> Document:
    schema: Document = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema
