"""Follow one turn of the agent to its end, whatever happens to the line in the meantime.

The events tell how it goes; wherever they may be incomplete, OpenCode's REST has the last word. A turn is over when
its session is idle *after* it was busy for this prompt: after an abort or an error an idle notice of the turn before
may still come in late.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from opencode_common.text import bare
from opencode_fleet.errors import InstanceError, NotFound
from opencode_fleet.wire import Ask, Event, Message, MessageError, MessageInfo, Part, Permission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opencode_fleet.instance import Instance

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress notes."""
LOOK_INTERVAL = 5.0
"""Seconds without a sign after which the truth is fetched: an event may have been lost."""
UNANSWERED_AFTER = 15.0
"""Seconds that an idle session may leave a stored prompt unanswered before the turn counts as lost."""
SETTLING = 2.0
"""Seconds in which an idle session's record may still be completed."""
MAX_HEARD = 2_000_000
MAX_UNSENT = 20_000
BROKEN_ENDS = 5
"""Answers in a row that the model broke off. OpenCode asks again for ever, several times a second."""
MESSAGES_LOOKED_AT = 50

Result = Literal["done", "needs-permission", "needs-answer", "running", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn stands; no text in it is cleaned yet.

    `text` is what the agent said since the prompt; `problem` why it failed, or why nothing is heard of it any more.
    """

    result: Result
    session_id: str
    text: str = ""
    problem: str = ""
    asks: list[Ask] = field(default_factory=list)


class Heard:
    """What the events told of one turn: enough to know its end without asking, as long as none was missed."""

    def __init__(self, instance: Instance, session_id: str, prompt_id: str, *, running: bool) -> None:
        self.began = running
        self.error = ""
        self.broken: set[str] = set()
        """Answers in a row that ended without the model's saying so."""
        self.unsent = ""
        """Text not yet passed on as progress."""
        self._state = instance.state
        self._session_id = session_id
        self._prompt_id = prompt_id
        self._missed = running
        self._finished: MessageInfo | None = None
        self._texts: dict[str, str] = {}
        self._size = 0

    def take(self, event: Event | None) -> None:
        """Take an event after the instance's state took it; None says that some may have been missed."""
        if event is None:
            self._missed = True
            return
        # The shapes were not checked: a malformed event is one that did not come.
        with suppress(ValidationError, KeyError, TypeError, ValueError):
            self._take(event.type, event.properties)

    def answer(self) -> str | None:
        """Return the text of a turn that ended well, for an idle session; None where OpenCode must be asked."""
        last = self._finished
        if self._missed or self.error or last is None or last.parent_id != self._prompt_id:
            return None
        return "\n\n".join(text for text in self._texts.values() if text)

    def _take(self, kind: str, properties: dict[str, Any]) -> None:
        if kind == "message.updated":
            self._take_message(MessageInfo.model_validate(properties["info"]))
        elif kind == "message.part.updated":
            part = Part.model_validate(properties["part"])
            if part.session_id == self._session_id:
                self._take_text(part.id, part.text, whole=True)
        elif properties.get("sessionID") != self._session_id:
            return
        elif kind == "session.status":
            busy = properties["status"]["type"] != "idle"
            self.began = self.began or busy
            # A late idle of the turn before: until the next busy, what streams is not kept.
            self._missed = self._missed or (not busy and self._finished is None)
        elif kind == "session.error":
            self.error = MessageError.model_validate(properties["error"]).describe()
        elif kind == "message.part.delta":
            self._take_text(str(properties["partID"]), str(properties["delta"]), whole=False)

    def _take_message(self, info: MessageInfo) -> None:
        if info.session_id != self._session_id or info.role != "assistant":
            return
        self.began = self.began or info.parent_id == self._prompt_id
        ended_well = info.finish == "stop" and info.error is None and info.time.completed is not None
        self._finished = info if ended_well else None
        if info.finish == "unknown" and info.error is None:
            self.broken.add(info.id)
        elif info.finish:
            self.broken.clear()

    def _take_text(self, part_id: str, text: str, *, whole: bool) -> None:
        """Take what is new in a text part. The instance's state knows which parts are text that the agent says."""
        if part_id not in self._state.live(self._session_id).parts:
            return
        before = self._texts.get(part_id, "")
        new = text[len(before) :] if whole else text
        self.unsent = (self.unsent + new)[-MAX_UNSENT:]
        self._size += len(new)
        if self._size > MAX_HEARD:
            self._missed = True
        else:
            self._texts[part_id] = text if whole else before + text


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
        self._directory = instance.state.directory
        self._heard = Heard(instance, session_id, prompt_id, running=running)
        self._sent_at = 0.0
        self._woken = asyncio.Event()
        self._idle_since: float | None = None
        """When OpenCode was first seen to be idle, since it was last seen busy."""

    def hear(self, event: Event | None) -> None:
        """Take an event from `Instance.listening`."""
        self._heard.take(event)
        self._woken.set()

    async def follow(self, timeout: float) -> Outcome:  # noqa: ASYNC109 - not an error when it passes
        """Wait, while `hear` is told the events, until the turn ends, needs a person, or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        looked = time.monotonic()
        while True:
            await self._send_progress()
            now = time.monotonic()
            if self._instance.closed:
                return self._failed("OpenCode was closed on its machine in the middle of it", await self._text())
            asks = self._instance.state.pending_asks(self._session_id)
            if asks:
                return self._waiting(asks, await self._text())
            if len(self._heard.broken) >= BROKEN_ENDS:
                return await self._stop_broken()
            idle = not self._instance.state.is_busy(self._session_id)
            answer = self._heard.answer() if idle else None
            if answer is not None:
                return Outcome("done", self._session_id, answer)
            if idle and (self._heard.began or self._heard.error or now - looked >= LOOK_INTERVAL):
                looked = now
                outcome = await self._look()
                if outcome is not None:
                    return outcome
            elif now - looked >= LOOK_INTERVAL:
                looked = now
                await self._refresh()
            if now >= deadline:
                return Outcome("running", self._session_id, await self._text(), self._trouble())
            pause = min(deadline - now, LOOK_INTERVAL, PROGRESS_INTERVAL if self._heard.unsent else LOOK_INTERVAL)
            if idle and self._heard.began:
                pause = min(pause, 0.5)  # idle, but OpenCode's record is not complete yet
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _send_progress(self) -> None:
        now = time.monotonic()
        if self._heard.unsent and now - self._sent_at >= PROGRESS_INTERVAL:
            text, self._heard.unsent = self._heard.unsent, ""
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
        if self._instance.state.directory != self._directory:
            return self._failed("another OpenCode, in another directory, has taken the instance's place", "")
        try:
            await self._instance.refresh_statuses()
            if self._instance.state.is_busy(self._session_id):
                self._idle_since = None
                return None
            self._idle_since = self._idle_since or time.monotonic()
            messages = await self._answers()
        except NotFound:
            return self._failed("the session was deleted meanwhile", "")
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
            if not self._idle_for(SETTLING):
                return None
            interrupted = "it was interrupted: OpenCode ended or restarted in the middle of it"
            return self._failed(self._heard.error or interrupted, text)
        if self._heard.error and not text:
            return self._failed(self._heard.error, text)
        return Outcome("done", self._session_id, text)

    def _unanswered(self) -> Outcome | None:
        if self._heard.error:
            return self._failed(self._heard.error, "")
        if self._idle_for(UNANSWERED_AFTER):
            return self._failed("the message is stored, but nothing answers it: OpenCode may have restarted", "")
        return None

    def _idle_for(self, seconds: float) -> bool:
        return self._idle_since is not None and time.monotonic() - self._idle_since >= seconds

    async def _stop_broken(self) -> Outcome:
        with suppress(InstanceError):
            await self._instance.api.abort(self._session_id)
        return self._failed(
            f"the model broke off {BROKEN_ENDS} answers in a row, so the turn was stopped: check the model's service",
            await self._text(),
        )

    def _trouble(self) -> str:
        """Say what keeps a running turn from going on."""
        if not self._instance.connected.is_set():
            return f"the connection to it is lost: {bare(self._instance.trouble)}"
        status = self._instance.state.statuses.get(self._session_id)
        return status.describe() if status is not None and status.type == "retry" else ""

    def _failed(self, problem: str, text: str) -> Outcome:
        return Outcome("failed", self._session_id, text, problem)

    def _waiting(self, asks: list[Ask], text: str) -> Outcome:
        permission = any(isinstance(ask, Permission) for ask in asks)
        return Outcome("needs-permission" if permission else "needs-answer", self._session_id, text, "", asks)

    async def _answers(self) -> list[Message]:
        """Return the agent's messages since the prompt, oldest first."""
        messages = await self._instance.api.messages(self._session_id, MESSAGES_LOOKED_AT)
        ids = [message.info.id for message in messages]
        if self._prompt_id in ids:
            messages = messages[ids.index(self._prompt_id) + 1 :]
        elif all(message.info.parent_id != self._prompt_id for message in messages):
            return []  # never stored; else only so long ago that it is not among these
        return [message for message in messages if message.info.role == "assistant"]

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
