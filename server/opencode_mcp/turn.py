"""Follow one turn of the agent to its end, whatever happens to the line in the meantime.

The events tell when to look; OpenCode's REST has the last word. A turn is over when its session is idle *after* it
was busy for this prompt: after an abort or an error an idle notice of the turn before may still come in late.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from opencode_mcp.errors import InstanceError
from opencode_mcp.wire import Ask, Event, Message, MessageError, MessageInfo, Part, Permission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opencode_mcp.instance import Instance

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress notes."""
LOOK_INTERVAL = 5.0
"""Seconds without a sign after which the truth is fetched: an event may have been lost."""
UNANSWERED_AFTER = 15.0
"""Seconds that an idle session may leave a stored prompt unanswered before the turn counts as lost."""
SETTLING = 2.0
"""Seconds in which an idle session's record may still be completed."""
BROKEN_ENDS = 5
"""Answers in a row that the model broke off. OpenCode asks again for ever, several times a second."""
MESSAGES_LOOKED_AT = 50

Result = Literal["done", "needs-permission", "needs-answer", "running", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn stands. `text` is what the agent said since the prompt (not yet cleaned)."""

    result: Result
    session_id: str
    text: str = ""
    problem: str = ""
    asks: list[Ask] = field(default_factory=list)


class Turn:
    """Follows the turn that `prompt_id` (a user's message, perhaps not yet posted) starts in a root session."""

    def __init__(
        self,
        instance: Instance,
        session_id: str,
        prompt_id: str,
        *,
        on_text: Callable[[str], Awaitable[None]],
        running: bool = False,
    ) -> None:
        self._instance = instance
        self._session_id = session_id
        self._prompt_id = prompt_id
        self._on_text = on_text
        self._began = running
        self._error = ""
        self._broken: set[str] = set()
        self._shown: dict[str, int] = {}
        self._unsent: list[str] = []
        self._sent_at = 0.0
        self._woken = asyncio.Event()
        self._started = time.monotonic()

    def hear(self, event: Event | None) -> None:
        """Take an event from `Instance.listening`."""
        if event is not None:
            # The shapes were not checked: a malformed event is one that did not come.
            with suppress(ValidationError, KeyError, TypeError, ValueError):
                self._hear(event)
        self._woken.set()

    def _hear(self, event: Event) -> None:
        properties = event.properties
        if event.type == "message.updated":
            info = MessageInfo.model_validate(properties["info"])
            if info.session_id == self._session_id and info.role == "assistant":
                self._began = self._began or info.parent_id == self._prompt_id
                if info.finish == "unknown" and info.error is None:
                    self._broken.add(info.id)
                elif info.finish:
                    self._broken.clear()
        elif event.type == "session.status":
            if properties.get("sessionID") == self._session_id and properties["status"]["type"] != "idle":
                self._began = True
        elif event.type == "session.error":
            if properties.get("sessionID") == self._session_id:
                self._error = MessageError.model_validate(properties["error"]).describe()
        elif event.type == "message.part.updated":
            part = Part.model_validate(properties["part"])
            if part.session_id == self._session_id:
                self._show(part.id, part.text, whole=True)
        elif event.type == "message.part.delta" and properties.get("sessionID") == self._session_id:
            self._show(str(properties["partID"]), str(properties["delta"]), whole=False)

    def _show(self, part_id: str, text: str, *, whole: bool) -> None:
        """Queue what is new in a text part. The instance's state knows which parts are text the agent says."""
        if part_id not in self._instance.state.live(self._session_id).parts:
            return
        before = self._shown.get(part_id, 0)
        new = text[before:] if whole else text
        self._shown[part_id] = before + len(new)
        if new:
            self._unsent.append(new)

    async def follow(self, timeout: float) -> Outcome:  # noqa: ASYNC109 - not an error when it passes
        """Wait, while `hear` is told the events, until the turn ends, needs a person, or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        looked = time.monotonic()
        while True:
            await self._send_progress()
            now = time.monotonic()
            asks = self._instance.state.pending_asks(self._session_id)
            if asks:
                return self._waiting(asks, await self._text())
            if len(self._broken) >= BROKEN_ENDS:
                return await self._stop_broken()
            idle = not self._instance.state.is_busy(self._session_id)
            if idle and (self._began or self._error or now - looked >= LOOK_INTERVAL):
                looked = now
                outcome = await self._look()
                if outcome is not None:
                    return outcome
            elif now - looked >= LOOK_INTERVAL:
                looked = now
                await self._refresh()
            if now >= deadline:
                return Outcome("running", self._session_id, await self._text())
            pause = min(deadline - now, LOOK_INTERVAL, PROGRESS_INTERVAL if self._unsent else LOOK_INTERVAL)
            if idle and self._began:
                pause = min(pause, 0.5)  # idle, but OpenCode's record is not complete yet
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _send_progress(self) -> None:
        now = time.monotonic()
        if self._unsent and now - self._sent_at >= PROGRESS_INTERVAL:
            text = "".join(self._unsent)
            self._unsent.clear()
            self._sent_at = now
            await self._on_text(text)

    async def _refresh(self) -> None:
        # A dead line is the instance's to mend; it tells when it stands again.
        with suppress(InstanceError):
            await self._instance.refresh()

    async def _look(self) -> Outcome | None:
        """Ask OpenCode whether the turn is over; None if it is not, or cannot be told yet."""
        if not self._instance.connected.is_set():
            return None
        try:
            await self._instance.refresh_statuses()
            if self._instance.state.is_busy(self._session_id):
                return None
            messages = await self._answers()
        except InstanceError:
            return None
        return self._verdict(messages) if messages else self._unanswered()

    def _verdict(self, messages: list[Message]) -> Outcome | None:
        """Say how the turn of an idle session ended, from the agent's messages in it."""
        last = messages[-1].info
        text = _joined(messages)
        if last.error is not None:
            return self._failed(last.error.describe(), text)
        if last.time.completed is None:
            if time.monotonic() - self._started < SETTLING:
                return None
            return self._failed("it was interrupted: OpenCode ended or restarted in the middle of it", text)
        if self._error and not text:
            return self._failed(self._error, text)
        return Outcome("done", self._session_id, text)

    def _unanswered(self) -> Outcome | None:
        if self._error:
            return self._failed(self._error, "")
        if time.monotonic() - self._started > UNANSWERED_AFTER:
            return self._failed("the message is stored, but nothing answers it: OpenCode may have restarted", "")
        return None

    async def _stop_broken(self) -> Outcome:
        with suppress(InstanceError):
            await self._instance.api.abort(self._session_id)
        return self._failed(
            f"the model broke off {BROKEN_ENDS} answers in a row, so the turn was stopped: check the model's service",
            await self._text(),
        )

    def _failed(self, problem: str, text: str) -> Outcome:
        return Outcome("failed", self._session_id, text, problem)

    def _waiting(self, asks: list[Ask], text: str) -> Outcome:
        permission = any(isinstance(ask, Permission) for ask in asks)
        return Outcome("needs-permission" if permission else "needs-answer", self._session_id, text, "", asks)

    async def _answers(self) -> list[Message]:
        """Return the agent's messages since the prompt, oldest first."""
        messages = await self._instance.api.messages(self._session_id, MESSAGES_LOOKED_AT)
        ids = [message.info.id for message in messages]
        after = messages[ids.index(self._prompt_id) + 1 :] if self._prompt_id in ids else messages
        if self._prompt_id not in ids and len(messages) < MESSAGES_LOOKED_AT:
            return []  # never stored
        return [message for message in after if message.info.role == "assistant"]

    async def _text(self) -> str:
        """Return what the agent said so far: what is finished by REST, what streams from memory."""
        live = self._instance.state.live(self._session_id).parts
        try:
            messages = await self._answers()
        except InstanceError:
            return "\n\n".join(text for text in live.values() if text)
        return _joined(messages, live)


def _joined(messages: list[Message], live: dict[str, str] | None = None) -> str:
    texts = [
        part.text or (live or {}).get(part.id, "")
        for message in messages
        for part in message.parts
        if part.type == "text" and not part.synthetic
    ]
    return "\n\n".join(text for text in texts if text)
