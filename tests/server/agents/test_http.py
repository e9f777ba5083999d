"""How what an agent or its guard answers is called: each failure by its own name, with what was said."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.agents import connect
from opencode_fleet.agents.guard import GUARD_PATH
from opencode_fleet.agents.http import AgentClient, TooLarge
from opencode_fleet.agents.opencode1 import OpenCode1
from opencode_fleet.errors import (
    AgentGone,
    BadAnswer,
    Forbidden,
    InstanceError,
    NotFound,
    Refused,
    Rejected,
    Unauthorized,
    Unreachable,
)
from opencode_fleet.transports.base import Endpoint
from support.fleet.fake_transport import FakeTransport
from support.fleet.running import a_fleet_over
from support.gateway.certificates import make_certificate
from support.opencodes.connected import client_for, guard_document
from support.opencodes.fake_http import FakeHttp
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.agents.guard import GuardDocument
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance

REFUSAL = "this machine's owner lets nobody approve for ever from afar; add always to `remote`"
HEALTHY = {"GET /global/health": {"healthy": True, "version": "1.18.33"}}


def said(name: str, message: str) -> str:
    return json.dumps({"name": name, "data": {"message": message, "right": "always"}})


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (401, "", Unauthorized, "wants a password"),
        (403, said("GuardRefused", REFUSAL), Forbidden, REFUSAL),
        (404, "", NotFound, "does not know it"),
        (502, said("AgentUnavailable", "OpenCode does not run"), AgentGone, "OpenCode does not run"),
        (503, said("AgentUnavailable", "OpenCode does not run"), AgentGone, "OpenCode does not run"),
        (503, "nothing to read", AgentGone, "no reason given"),
        (502, "[]", AgentGone, "no reason given"),
        (502, said("AnswerTooLarge", "more than 8 MiB"), TooLarge, "more than 8 MiB"),
        (500, json.dumps({"_tag": "X", "message": "of the second kind"}), Rejected, "of the second kind"),
        (400, "[]", Rejected, "no reason given"),
    ],
)
async def test_each_refusal_has_its_own_kind_and_says_what_was_said(
    status: int, body: str, error: type[InstanceError], words: str
) -> None:
    async with FakeHttp({"GET /x": (status, body)}) as server:
        client = client_for(server.url)
        with pytest.raises(error) as raised:
            await client.call("GET", "/x")
        await client.aclose()
    assert type(raised.value) is error
    assert words in str(raised.value)


async def first_in_trouble(fleet: Fleet) -> Instance | None:
    return next((instance for instance in await fleet.instances() if instance.trouble), None)


# -- over https -----------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody trusts of himself, and its key."""
    return make_certificate(tmp_path, "localhost")


def server_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_an_agent_over_https_is_reached_where_its_certificate_is_known(
    certificate: tuple[Path, Path],
) -> None:
    async with FakeHttp(HEALTHY, tls=server_side(certificate)) as server:
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        client = AgentClient(Endpoint("far", server.url, "far.example", "/", tls=trusting), 20.0)
        assert (await connect(client)).version == "1.18.33"
        await client.aclose()


async def test_a_certificate_that_is_not_trusted_is_no_port_at_which_nothing_listens(
    certificate: tuple[Path, Path],
) -> None:
    transport = FakeTransport()
    async with FakeHttp(HEALTHY, tls=server_side(certificate)) as server, a_fleet_over(transport) as fleet:
        transport.announce("far", server.url)
        instance = await eventually_async(lambda: first_in_trouble(fleet))
        assert "cannot be trusted" in instance.trouble
        assert instance.offline_since is None
        assert transport.refused == []
        # It is known to be wrong, so that nobody waits for it to start.
        assert instance.state_name() == "unresponsive"
        assert server.asked == []


async def test_what_speaks_no_tls_is_not_offline_either() -> None:
    async with FakeHttp(HEALTHY) as server:
        client = client_for(server.url.replace("http:", "https:"))
        with pytest.raises(BadAnswer, match="cannot be trusted"):
            await client.call("GET", "/global/health")
        await client.aclose()


async def test_where_nothing_listens_it_is_called_that_over_https_too() -> None:
    client = client_for(f"https://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="nothing listens") as raised:
        await client.call("GET", "/global/health")
    assert raised.value.refused
    await client.aclose()


# -- what stands before an agent -------------------------------------------------------------------------------------


async def connected_with(document: object) -> OpenCode1:
    async with FakeHttp({**HEALTHY, f"GET {GUARD_PATH}": document}) as server:
        client = client_for(server.url)
        try:
            agent = await connect(client)
        finally:
            await client.aclose()
    assert isinstance(agent, OpenCode1)
    return agent


def document(**changed: object) -> dict[str, object]:
    guard: GuardDocument = guard_document(version="1.18.33")
    return {**guard.model_dump(mode="json"), "generation": 1, **changed}


async def test_the_guard_tells_what_may_be_done_from_afar() -> None:
    assert (await connected_with(document())).rights == frozenset({"observe", "drive", "approve"})
    odd = document(rights=["observe", 5, "x" * 1000, None], directories=[])
    assert (await connected_with(odd)).rights == frozenset({"observe"})


@pytest.mark.parametrize("answer", [[], {}, "yes", None, (200, "<html>")])
async def test_without_a_guard_nothing_is_told_of_it(answer: object) -> None:
    assert (await connected_with(answer)).rights is None


@pytest.mark.parametrize(
    "changed",
    [
        {"guard": 2},
        {"generation": 3},
        {"directories": [{}]},
        {"directories": [{"path": f"/{n}"} for n in range(1001)]},
    ],
)
async def test_a_guard_s_document_of_another_shape_is_not_understood(changed: dict[str, object]) -> None:
    with pytest.raises(BadAnswer, match="of another shape"):
        await connected_with(document(**changed))


def test_a_verb_that_the_guard_does_not_know_is_said_with_what_to_do() -> None:
    guard = guard_document(verbs=["health"])
    guard.require("health")
    with pytest.raises(Refused, match="update opencode-relay on that laptop"):
        guard.require("fork")


async def test_a_guard_without_its_agent_is_the_agent_s_absence() -> None:
    gone = (503, said("AgentUnavailable", "OpenCode does not run; start it there"))
    transport = FakeTransport()
    async with FakeHttp({f"GET {GUARD_PATH}": gone}) as server, a_fleet_over(transport) as fleet:
        transport.announce("laptop", server.url)
        instance = await eventually_async(lambda: first_in_trouble(fleet))
        assert instance.is_agent_gone
        assert instance.gone_since is not None
        assert instance.offline_since is None
        assert "OpenCode does not run; start it there" in instance.trouble
