"""What is decided of what pages ask for, wherever the page itself looked away; the server behind it is fake."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from opencode_gateway.audit import AuditLog
from opencode_gateway.calls.changes import Changes
from opencode_gateway.calls.children import ServerChild
from opencode_gateway.calls.servers import Server
from opencode_gateway.calls.source import OpenCodeSource
from opencode_gateway.configuration import Audit
from opencode_pages.parts import NotDecided, NotThere, PageDecision, Unavailable, Visitor
from support.pages.fake_asks import DIGEST, ENTRY, Asks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANN = Visitor("ann", "ann", frozenset({"observe", "approve"}), "5e55")
ONCE = PageDecision("a3", DIGEST, "once")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def child(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ServerChild, Path]]:
    directory = tmp_path_factory.mktemp("asks")
    server = Server.model_validate(ENTRY)
    running = ServerChild("opencode", server, {**os.environ, "FAKE_ASKS": str(directory)}, "1")
    await running.start()
    yield running, directory
    await running.end()


@pytest.fixture
def asks(child: tuple[ServerChild, Path]) -> Asks:
    found = Asks(child[1])
    found.put()
    return found


@pytest.fixture
def source(child: tuple[ServerChild, Path], asks: Asks) -> OpenCodeSource:
    del asks  # one waits
    return OpenCodeSource(
        child[0],
        AuditLog(Audit(), stream=io.StringIO()),
        Changes(None),
        "https://relay.example.org",
        passkey_for=["always"],
    )


@pytest.mark.parametrize(
    ("visitor", "decision", "changed", "why"),
    [
        (replace(ANN, may=frozenset({"observe", "drive"})), ONCE, {}, "`approve`"),
        (ANN, replace(ONCE, digest="1" * 32), {}, "another one"),
        (ANN, ONCE, {"digest": "1" * 32}, "another one"),
        (ANN, ONCE, {"whole": False}, "only be rejected"),
        (ANN, replace(ONCE, answer="always"), {}, "passkey"),
        (ANN, replace(ONCE, answer=" Always "), {}, "passkey"),
        (ANN, replace(ONCE, answer="always: please"), {}, "passkey"),
        (ANN, replace(ONCE, answer=["always"]), {}, "takes `once`"),
        (ANN, replace(ONCE, handle="a4"), {}, "not open any more"),
    ],
)
async def test_what_is_not_this_person_s_to_decide_so_reaches_nobody(
    source: OpenCodeSource,
    asks: Asks,
    *,
    visitor: Visitor,
    decision: PageDecision,
    changed: dict[str, object],
    why: str,
) -> None:
    asks.change(**changed)
    with pytest.raises(NotDecided, match=why):
        await source.decide(visitor, decision)
    assert asks.replies() == []


@pytest.mark.parametrize(
    "decision",
    [ONCE, replace(ONCE, answer="always", proof="a passkey's"), replace(ONCE, answer=["yes", "no"])],
)
async def test_what_is_theirs_reaches_the_server(source: OpenCodeSource, asks: Asks, decision: PageDecision) -> None:
    asks.change(kind="question" if decision.word == "answer" else "permission")
    await source.decide(ANN, decision)
    [reply] = asks.replies()
    assert reply["answer"] == decision.answer


async def test_what_is_too_large_to_be_shown_can_be_rejected(source: OpenCodeSource, asks: Asks) -> None:
    asks.change(whole=False)
    await source.decide(ANN, replace(ONCE, answer="reject: too large"))
    assert len(asks.replies()) == 1


async def test_what_the_server_says_of_a_refusal_is_told(source: OpenCodeSource, asks: Asks) -> None:
    asks.change(state="settled")
    with pytest.raises(NotDecided, match="bob settled it before, in the terminal"):
        await source.decide(ANN, ONCE)


async def test_an_address_that_leads_to_another_ask_leads_nowhere(source: OpenCodeSource) -> None:
    assert (await source.ask_of(ANN, "laptop", "per_1")).handle == "a3"
    for instance, id_ in (("laptop", "per_2"), ("phone", "per_1"), ("..", "a3"), ("a/b", "per_1")):
        with pytest.raises(NotThere):
            await source.ask_of(ANN, instance, id_)
    for handle in ("a4", "../inbox", "laptop/per_1", ""):
        with pytest.raises(NotThere):
            await source.ask(ANN, handle)


async def test_an_ask_that_changed_is_shown_as_it_is_now_by_the_handle_that_it_had(
    source: OpenCodeSource, asks: Asks
) -> None:
    asks.change(handle="a5", earlier=["a3"], digest="1" * 32)
    assert (await source.ask(ANN, "a3")).handle == "a5"
    with pytest.raises(NotDecided, match="another one"):
        await source.decide(ANN, ONCE)


async def test_who_may_neither_look_nor_decide_sees_nothing(source: OpenCodeSource) -> None:
    driver = replace(ANN, may=frozenset({"drive"}))
    for reading in (source.inbox(driver), source.ask(driver, "a3")):
        with pytest.raises(Unavailable, match="`observe`"):
            await reading


async def test_what_is_no_document_is_said_to_be_unknown(source: OpenCodeSource, asks: Asks) -> None:
    asks.change(digest="none")
    with pytest.raises(Unavailable, match="does not know"):
        await source.ask(ANN, "a3")
