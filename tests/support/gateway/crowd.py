"""Many chat sessions at once at one gateway: each a client of its own, of its own person, with a message of its own.

A message is nothing but one marker, many times; in its midst the scripted model waits at a gate of that name. So all
turns run at once, each with its first half told, before the first of them may end.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from support.chat.mcp_client import Answer, Era, Progress, ToolClient
    from support.gateway.public_gateway import PublicGateway
    from support.opencodes.scripted_model import ScriptedModel

ERAS: tuple[Era, ...] = ("legacy", "2026-07-28")
"""Taken by turns."""
_WORDS = 20
"""In each half of a message."""


@dataclass
class Chat:
    """One session. `seen`: the progress of its message so far."""

    client: ToolClient
    person: str
    instance: str
    marker: str
    seen: list[Progress] = field(default_factory=list)

    @property
    def message(self) -> str:
        """What it sends."""
        half = f"{self.marker} " * _WORDS
        return f"{half}GATE:{self.marker} {half}".rstrip()

    @property
    def answer(self) -> str:
        """What the scripted model answers."""
        return "echo: " + self.message.replace(f"GATE:{self.marker}", "")

    async def send(self) -> Answer:
        """Send the message to a new session and wait for the turn's end."""
        return await self.client.call(
            "send", on_progress=self.seen.append, instance=self.instance, message=self.message, session="new"
        )

    @property
    def told(self) -> str:
        """The text that came as progress."""
        return "".join(note.message for note in self.seen)

    def at_gate(self, model: ScriptedModel) -> bool:
        """Tell whether the model waits for this one's gate."""
        return model.reached(self.marker)


@asynccontextmanager
async def crowd(gateway: PublicGateway, instances: Sequence[str], count: int, name: str) -> AsyncIterator[list[Chat]]:
    """Connect `count` sessions, each to one of `instances`; `name` tells their markers from those of other crowds."""
    people = [f"{name}-{number:02}" for number in range(count)]
    tokens = await gateway.sign_in(people)
    failure: Exception | None = None
    async with AsyncExitStack() as connected:
        chats = [
            Chat(
                await connected.enter_async_context(gateway.client(token, era=era)), person, instance, f"of-{person}"
            )
            for person, token, era, instance in zip(
                people, tokens, itertools.cycle(ERAS), itertools.cycle(_each_twice(instances)), strict=False
            )
        ]
        try:
            yield chats
        except Exception as error:  # noqa: BLE001 - raised again below, outside the SDK's task groups
            failure = error
    if failure:
        raise failure


def _each_twice(names: Sequence[str]) -> list[str]:
    """Return each name twice in a row, so that each instance is spoken to in both eras."""
    return [name for name in names for _ in ERAS]


async def all_at_gates(chats: Sequence[Chat], model: ScriptedModel, *, within: float = 60.0) -> None:
    """Wait until every turn runs, and the first half of every answer has begun to be told."""
    await eventually_async(
        lambda: not [chat.marker for chat in chats if not (chat.at_gate(model) and chat.seen)],
        "all turns at once, and something told of each",
        within=within,
    )


def open_gates(chats: Sequence[Chat], model: ScriptedModel) -> None:
    """Let every turn end."""
    for chat in chats:
        model.release(chat.marker)


def wrong_with(chat: Chat, answer: Answer, model: ScriptedModel) -> list[str]:
    """Say what of a session's own was lost or came twice, and what it got of others'; nothing if all is well."""
    if answer.is_error or answer.structured["result"] != "done":
        return [f"{chat.person}: {answer.text[:200]}"]
    session, text = answer.structured["session"], answer.structured["text"]
    turns = model.turns(chat.marker)
    found = {
        "its answer is another": text != chat.answer,
        "nothing was told": not chat.told,
        "what was told is not how the answer begins": not text.startswith(chat.told),
        "the text does not hold the answer": chat.answer not in answer.text,
        "another instance answered": answer.structured["instance"] != chat.instance,
        f"sent {len(turns)} times": len(turns) != 1,
        "the turn ran in another session": any(turn.session != session for turn in turns),
    }
    return [f"{chat.person}: {what}" for what, is_so in found.items() if is_so]


def wrong_in_audit(gateway: PublicGateway, sessions: dict[str, str]) -> list[str]:
    """Compare the audit log's `send`s with the session that each person was answered from."""
    logged = {
        line["login"]: line.get("session")
        for line in gateway.audit()
        if line["event"] == "call" and line["tool"] == "send" and line["login"] in sessions
    }
    return [
        f"{person}: the audit log has session {logged.get(person)}, not {session}"
        for person, session in sessions.items()
        if logged.get(person) != session
    ]


async def all_send(
    chats: Sequence[Chat], model: ScriptedModel, gateway: PublicGateway, *, within: float = 60.0
) -> list[str]:
    """Have all send at once; return what was crossed, lost or doubled."""
    sending = [asyncio.create_task(chat.send()) for chat in chats]
    await all_at_gates(chats, model, within=within)
    open_gates(chats, model)
    answers = await asyncio.gather(*sending)
    wrong = [what for chat, answer in zip(chats, answers, strict=True) for what in wrong_with(chat, answer, model)]
    sessions = {
        chat.person: answer.structured.get("session", "") for chat, answer in zip(chats, answers, strict=True)
    }
    if len(set(sessions.values())) != len(chats):
        wrong.append("two have one session")
    return wrong + wrong_in_audit(gateway, sessions)
