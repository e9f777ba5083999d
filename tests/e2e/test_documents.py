"""What a page shows of real OpenCode's asks: all of it, and what was shown is what is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from mcp_types import TextResourceContents

from opencode_mcp.caller import KEY
from opencode_pages.documents import ASK, INBOX, AskDocument, InboxDocument
from support.chat.mcp_client import relay_client
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from mcp_types import CallToolResult, RequestParamsMeta

    from support.chat.mcp_client import RelayClient
    from support.opencodes.driven import Driven


async def text_at(client: RelayClient, uri: str) -> str:
    (content,) = (await client.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def only_ask(client: RelayClient) -> AskDocument:
    """Return the one ask that waits, once it is there and its machine answers."""

    async def is_open() -> AskDocument | None:
        for summary in InboxDocument.model_validate_json(await text_at(client, INBOX)).asks:
            found = AskDocument.model_validate_json(await text_at(client, ASK.format(handle=summary.handle)))
            return found if found.state == "open" else None
        return None

    ask = await eventually_async(is_open, "the ask is open", within=60)
    assert isinstance(ask, AskDocument)
    return ask


async def decide(client: RelayClient, ask: AskDocument, answer: str, digest: str) -> CallToolResult:
    said = {"login": "ann", "may": ["observe", "approve"], "page": "https://relay.example", "shown": digest}
    arguments: dict[str, Any] = {"instance": ask.instance, "ask": ask.handle, "answer": answer}
    return await client.client.call_tool("reply", arguments, meta=cast("RequestParamsMeta", {KEY: said}))


@pytest.mark.asyncio(loop_scope="session")
async def test_an_ask_is_shown_whole_by_every_server_alike_and_settled_as_it_was_shown(laptop: Driven) -> None:
    session = laptop.create("Fix the login")
    laptop.post(session, "[BASH:echo on-the-page && true]")
    told = {"RELAY_CALLERS": "told"}
    async with relay_client(laptop.registry, env=told) as client, relay_client(laptop.registry, env=told) as other:
        ask = await only_ask(client)
        assert (ask.kind, ask.state, ask.whole, ask.instance) == ("permission", "open", True, laptop.name)
        assert "echo on-the-page && true" in {part.text for part in ask.parts}
        assert ask.digest == (await only_ask(other)).digest
        refused = await decide(client, ask, "reject", "0" * 32)
        assert refused.is_error
        assert laptop.asks() == [ask.id]
        settled = await decide(client, ask, "once", ask.digest)
        assert (settled.structured_content or {})["result"] == "settled"
        eventually(lambda: session not in laptop.running(), "the turn is over", within=60)
        after = AskDocument.model_validate_json(await text_at(client, ASK.format(handle=ask.handle)))
        assert (after.state, after.settled) == ("settled", "allowed once, by ann")
