"""A conversation between Ann and the assistant on her phone, and how it is written down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support.chat.mcp_client import Answer, ToolClient
    from support.chat.transcript import Tidy

INTRODUCTION = """\
# A day away from the desk

This is what `tests/day` plays, each time the tests run: a chat client that logs in by OAuth, Caddy, the gateway, the
server, an sshd, and three machines with the real launcher.
The laptop runs OpenCode 1 with a screen, the desktop OpenCode 2, the workbox OpenCode 1 without a screen.

What Ann says is followed by the call that her assistant makes of it, and by the answer's whole text.
The model behind OpenCode is scripted: `[BASH:…]` in a message is what it does, at `GATE:…` it waits, and else it
repeats what it was told.
Times, ids and handles are those of this page, and cursors are left out.
What comes from another machine stands between delimiters that nobody there can forge; here they are left out.
"""


class Chat:
    """Ann's chat: what she asks for, and what the assistant calls and hears."""

    def __init__(self, client: ToolClient, tidy: Tidy) -> None:
        self._client = client
        self._tidy = tidy
        self._blocks = [INTRODUCTION.rstrip()]

    @property
    def transcript(self) -> str:
        """All of it, as Markdown."""
        return "\n\n".join(self._blocks) + "\n"

    def begins(self, part: str) -> None:
        """Begin a part of the day."""
        self._blocks.append(f"## {part}")

    def meanwhile(self, tells: str) -> None:
        """Tell what happens beside the chat."""
        self._blocks.append(f"*{tells}*")

    async def asks(
        self,
        says: str,
        tool: str,
        *,
        refused: bool = False,
        once: Callable[[], object] | None = None,
        then: Callable[[], object] | None = None,
        **arguments: object,
    ) -> Answer:
        """Ann says something; the assistant makes a call of it.

        Args:
            says: Ann's words.
            tool: the tool that is called.
            refused: whether the answer is an error.
            once: what must be so before `then`, while the call waits.
            then: what happens while the call waits.
            arguments: the tool's.
        """
        calling = asyncio.create_task(self._client.call(tool, on_progress=None, **arguments))
        if once:
            await eventually_async(lambda: once() or calling.done())
        if then:
            then()
        answer = await calling
        assert answer.is_error == refused, answer.text
        call, text = self._tidy.call(tool, arguments), self._tidy.text(answer.text).rstrip()
        self._blocks.append(f"**Ann:** {says}")
        self._blocks.append(f"```text\n▶ {call}\n\n{text}\n```")
        return answer

    async def until(self, states: Mapping[str, str], titles: Mapping[str, str] | None = None) -> None:
        """Wait, unseen, until the instances are in these states, and their sessions have these titles."""

        async def known() -> bool:
            rows = (await self._client.call("instances")).structured["instances"]
            found = {row["name"]: (row["state"], row.get("title", "")) for row in rows}
            assert all(found.get(name, ("gone", ""))[0] == state for name, state in states.items()), found
            assert all(found[name][1] == title for name, title in (titles or {}).items()), found
            return True

        await eventually_async(known)

    async def until_over(self, cursor: str, *names: str) -> str:
        """Wait, unseen, until a turn of each of these instances has ended since the cursor; return the next one."""

        async def over() -> str:
            told = (await self._client.call("inbox", cursor=cursor)).structured
            ended = {row["instance"] for row in told["ended"] if row["result"] != "away"}
            assert ended.issuperset(names), told
            return str(told["cursor"])

        return str(await eventually_async(over))
