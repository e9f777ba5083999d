"""What a page shows of real OpenCode's asks: all of it, and what was shown is what is settled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, cast

import pytest
from mcp_types import TextResourceContents
from playwright.sync_api import expect

from opencode_mcp.caller import KEY
from opencode_pages.documents import ASK, INBOX, AskDocument, InboxDocument
from support.browser import chromium, screenshot
from support.mcp_client import SERVER_COMMAND, relay_client
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_types import CallToolResult, RequestParamsMeta
    from playwright.sync_api import Browser

    from support.driven import Driven
    from support.mcp_client import RelayClient


async def text_at(client: RelayClient, uri: str) -> str:
    (content,) = (await client.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def only_ask(client: RelayClient) -> AskDocument:
    """Return the one ask that waits, once it does."""
    found = InboxDocument()

    async def is_there() -> bool:
        nonlocal found
        found = InboxDocument.model_validate_json(await text_at(client, INBOX))
        return bool(found.asks)

    await eventually_async(is_there, "the ask is in the inbox", within=60)
    (summary,) = found.asks
    return AskDocument.model_validate_json(await text_at(client, ASK.format(handle=summary.handle)))


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.generations(1)
def test_one_person_on_one_machine_decides_in_a_browser(laptop: Driven, browser: Browser, tmp_path: Path) -> None:
    session = laptop.create("Fix the login")
    laptop.post(session, "[BASH:echo in-the-browser]")
    environment = {
        "PATH": os.environ["PATH"],
        "RELAY_REGISTRY_DIR": str(laptop.registry),
        "RELAY_STATE_DIR": str(tmp_path / "state"),
    }
    command = [str(SERVER_COMMAND), "--page"]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as serving:
        assert serving.stdout is not None
        link = serving.stdout.readline().rpartition(" ")[2].strip()
        page = browser.new_page()
        page.goto(link)
        page.get_by_role("link", name=re.compile("echo in-the-browser")).click()
        screenshot(page, "local-ask")
        page.get_by_role("button", name=re.compile("once", re.IGNORECASE)).click()
        page.wait_for_url("**/inbox*")
        eventually(lambda: session not in laptop.running(), "the turn is over", within=60)
        expect(page.get_by_text("was allowed once")).to_be_visible()
        # The inbox holds a stream open, which keeps nobody from ending it.
        serving.send_signal(signal.SIGINT)
        _, said = serving.communicate(timeout=30)
    assert (serving.returncode, said) == (0, "")
