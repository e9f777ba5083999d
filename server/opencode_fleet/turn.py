"""Follow one turn of an agent to its end, whatever happens to the line in the meantime.

The events tell how it goes; wherever they may be incomplete, the agent's records have the last word. A turn is over
when its session is idle *after* it was busy for this prompt: after an abort or an error an idle notice of the turn
before may still come in late.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_common.text import bare, quote
from opencode_fleet.agent import Capability
from opencode_fleet.errors import InstanceError, NotFound
from opencode_fleet.events import AnswerChanged, PromptTaken, StatusChanged, TextChanged, TurnFailed
from opencode_fleet.model import Outcome, Permission, Prompt, TurnRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_fleet.events import Event
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Message

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress notes."""
LOOK_INTERVAL = 5.0
"""Seconds without a sign after which the truth is fetched: an event may have been lost."""
UNANSWERED_AFTER = 15.0
"""Seconds that an idle session may leave a stored prompt unanswered before the turn counts as lost."""
WAKE_AFTER = 2.0
"""Seconds that an idle session may leave a prompt unread before it is posted again."""
SETTLING = 2.0
"""Seconds in which an idle session's record may still be completed."""
GONE_AFTER = 5.0
"""Seconds after which an agent that its own machine calls gone does not come back to its turn."""
RESTARTED_WITHIN = 20.0
"""The same where a service may come back and resume its turns, or only the line be cut."""
TAKEN_OVER_WITHIN = 6.0
"""Seconds within which another launcher of that machine takes over the line of one that ended."""
RECORD_WITHIN = 5.0
"""Seconds in which an answer must have come where the turn's time is over; else what was heard counts."""
MAX_HEARD = 2_000_000
MAX_UNSENT = 20_000
_SHARED = "another message came in between, and OpenCode answered both together: this may be the answer to both"
_NOT_BEGUN = (
    "OpenCode did not begin with it. If this session's agent{agent} or its model is not configured there any more, "
    "each message to this session fails like this: `send` with session='new' takes those that are"
)
BROKEN_ENDS = 5
"""Answers in a row that the model broke off. OpenCode 1 asks again for ever, several times a second."""


class Heard:
    """What the events told of one turn: enough to know its end without asking, as long as none was missed."""

    def __init__(self, session_id: str, prompt_id: str, *, running: bool) -> None:
        self.began = running
        self.error = ""
        self.broken: set[str] = set()
        """Answers in a row that ended without the model's saying so."""
        self.unsent = ""
        """Text not yet passed on as progress."""
        self._session_id = session_id
        self._prompt_id = prompt_id
        self._missed = running
        self._is_finished = False
        self._texts: dict[str, str] = {}
        self._size = 0

    def take(self, event: Event | None) -> None:
        """Take an event after the instance's state took it; None says that some may have been missed."""
        if event is None:
            self._missed = True
        elif event.session_id == self._session_id:
            self._take(event)

    def answer(self) -> str | None:
        """Return the text of a turn that ended well, for an idle session; None where the agent must be asked."""
        if self._missed or self.error or not self._is_finished:
            return None
        return "\n\n".join(text for text in self._texts.values() if text)

    def _take(self, event: Event) -> None:
        match event:
            case StatusChanged(_, status):
                self.began = self.began or status is not None
                # A late idle of the turn before: until the next busy, what streams is not kept.
                self._missed = self._missed or (status is None and not self._is_finished)
            case TurnFailed(_, problem):
                self.error = problem
            case PromptTaken(_, prompt_id):
                self.began = self.began or prompt_id == self._prompt_id
            case AnswerChanged():
                self._take_answer(event)
            case TextChanged():
                self._take_text(event)
            case _:
                pass

    def _take_answer(self, event: AnswerChanged) -> None:
        ours = event.prompt_id == self._prompt_id
        self.began = self.began or ours
        self._is_finished = ours and event.ended == "well"
        if event.ended == "broken":
            self.broken.add(event.message_id)
        elif event.ended:
            self.broken.clear()

    def _take_text(self, event: TextChanged) -> None:
        if not self.began:
            return  # of the turn before
        before = self._texts.get(event.part_id, "")
        new = event.text[len(before) :] if event.is_whole else event.text
        self.unsent = (self.unsent + new)[-MAX_UNSENT:]
        self._size += len(new)
        if self._size > MAX_HEARD:
            self._missed = True
        else:
            self._texts[event.part_id] = event.text if event.is_whole else before + event.text


class Turn:
    """Follows the turn that a prompt (perhaps not yet posted) starts in a root session."""

    def __init__(
        self,
        instance: Instance,
        prompt: Prompt,
        *,
        on_text: Callable[[str], Awaitable[None]],
        running: bool = False,
    ) -> None:
        """`running`: the turn is under way."""
        self._instance = instance
        self._prompt = prompt
        self._session_id = prompt.session_id
        self._on_text = on_text
        self._directory = instance.state.directory
        self._heard = Heard(prompt.session_id, prompt.id, running=running)
        self._running = running
        self._rejected = False
        self._is_left = False
        self._sent_at = 0.0
        self._deadline = time.monotonic()
        self._woken = asyncio.Event()
        self._idle_since: float | None = None
        """When the agent was first seen to be idle, since it was last seen busy."""
        self._is_awake = False

    @property
    def is_only_accepted(self) -> bool:
        """Whether nothing was seen of its beginning, so that it is still to come."""
        return not self._heard.began and not self._instance.state.is_busy(self._session_id)

    def hear(self, event: Event | None) -> None:
        """Take an event from `Instance.listening`."""
        self._heard.take(event)
        self._woken.set()

    def refuse(self) -> None:
        """Note that a person just refused what it asked, which may end it."""
        self._rejected = True

    def leave(self) -> None:
        """Follow it no longer: `follow` returns at once, with what is known by then."""
        self._is_left = True
        self._deadline = time.monotonic()
        self._woken.set()

    async def follow(self, timeout: float) -> Outcome:  # noqa: ASYNC109 - not an error when it passes
        """Wait, while `hear` is told the events, until the turn ends, needs a person, or `timeout` seconds passed."""
        self._deadline = time.monotonic() + (0.0 if self._is_left else timeout)
        looked = time.monotonic()
        while True:
            await self._send_progress()
            now = time.monotonic()
            outcome = await self._ended_or_waiting()
            if outcome is not None:
                return outcome
            idle = not self._instance.state.is_busy(self._session_id)
            if idle and (self._heard.began or self._heard.error or now - looked >= LOOK_INTERVAL):
                looked = now
                outcome = await self._look()
                if outcome is not None:
                    return outcome
            elif now - looked >= LOOK_INTERVAL:
                looked = now
                await self._refresh()
            if now >= self._deadline:
                is_lost = not self._instance.connected.is_set()
                return Outcome(
                    "lost" if is_lost else "running", self._session_id, await self._text(), self._trouble()
                )
            pause = min(
                self._deadline - now, LOOK_INTERVAL, PROGRESS_INTERVAL if self._heard.unsent else LOOK_INTERVAL
            )
            if idle and self._heard.began:
                pause = min(pause, 0.5)  # idle, but the agent's record is not complete yet
            if not self._instance.connected.is_set():
                pause = min(pause, 1.0)
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _ended_or_waiting(self) -> Outcome | None:
        """Return what is known from memory alone."""
        if self._is_closed():
            return await self._closed()
        if self._is_gone():
            return self._gone()
        asks = self._instance.state.pending_asks(self._session_id)
        if asks:
            return self._waiting(asks, await self._text())
        if len(self._heard.broken) >= BROKEN_ENDS:
            return await self._stop_broken()
        if not self._instance.state.is_busy(self._session_id) and (answer := self._heard.answer()) is not None:
            return Outcome("done", self._session_id, answer)
        return None

    def _is_closed(self) -> bool:
        """Whether it was closed there, and no other launcher there takes the line over."""
        since = self._instance.closed_since
        patience = TAKEN_OVER_WITHIN if self._instance.can(Capability.OUTLIVES) else 0.0
        return since is not None and time.monotonic() - since >= patience

    async def _closed(self) -> Outcome:
        text = await self._text()
        if self._instance.can(Capability.OUTLIVES):
            problem = "it was closed there, and the turn goes on; `read` shows more once it is opened there again"
            return Outcome("running", self._session_id, text, problem)
        return self._failed("OpenCode was closed on its machine in the middle of it", text)

    def _gone(self) -> Outcome:
        text = self._live_text()
        if self._instance.is_agent_gone:
            return self._failed("OpenCode does not run there any more, and broke the turn off", text)
        return Outcome(
            "lost",
            self._session_id,
            text,
            "nothing listens there any more: OpenCode has ended, or the line to it is cut",
        )

    def _is_gone(self) -> bool:
        """Whether it is registered and does not answer, for longer than a restart takes."""
        since = self._instance.gone_since
        surely = self._instance.is_agent_gone and not self._instance.can(Capability.OUTLIVES)
        patience = GONE_AFTER if surely else RESTARTED_WITHIN
        return since is not None and time.monotonic() - since >= patience

    async def _send_progress(self) -> None:
        now = time.monotonic()
        if self._heard.unsent and now - self._sent_at >= PROGRESS_INTERVAL:
            text, self._heard.unsent = self._heard.unsent, ""
            self._sent_at = now
            await self._on_text(text)

    async def _refresh(self) -> None:
        # A dead line is the connection's to mend; it tells when it stands again.
        with suppress(InstanceError, TimeoutError):
            async with self._in_time():
                await self._instance.refresh()

    def _in_time(self) -> asyncio.Timeout:
        # On a slow line it may take long, and whoever waits for the turn has only so much time.
        return asyncio.timeout(max(RECORD_WITHIN, self._deadline - time.monotonic()))

    async def _look(self) -> Outcome | None:
        """Ask the agent whether the turn is over; None if it is not, or cannot be told yet."""
        if not self._instance.connected.is_set():
            return None
        if self._instance.state.directory != self._directory:
            return self._failed("another OpenCode, in another directory, has taken the instance's place", "")
        try:
            async with self._in_time():
                await self._instance.refresh()
            if not self._instance.state.is_busy(self._session_id):
                self._idle_since = self._idle_since or time.monotonic()
                return await self._verdict(await self._record())
            self._idle_since = None
        except NotFound:
            return self._failed("the session was deleted meanwhile", "")
        except (InstanceError, TimeoutError):
            pass
        return None

    async def _verdict(self, record: TurnRecord) -> Outcome | None:
        """Say how the turn of an idle session ended, from the agent's records of it."""
        if not (record.answers or record.problem or record.is_interrupted):
            return await self._unanswered(record)
        last = record.answers[-1] if record.answers else None
        text = _joined(record.answers)
        # Where the agent ends a turn that was refused something, that is its good end.
        is_refused = self._rejected and record.is_interrupted
        # What was heard says more than a record that only knows of the failure.
        problem = (last.error if last is not None else "") or (
            record.problem and (self._heard.error or record.problem)
        )
        if problem and not is_refused:
            return self._failed(problem, text, self._what_helps(record))
        if not is_refused and (record.is_interrupted or (last is not None and last.completed is None)):
            if not self._idle_for(SETTLING):
                return None
            interrupted = "it was interrupted: OpenCode was stopped, ended or restarted in the middle of it"
            return self._failed(self._heard.error or interrupted, text)
        if self._heard.error and not text:
            return self._failed(self._heard.error, text)
        return Outcome("done", self._session_id, text, note=_SHARED if record.is_shared else "")

    async def _unanswered(self, record: TurnRecord) -> Outcome | None:
        if self._heard.error:
            return self._failed(self._heard.error, "", self._what_helps(record))
        if record.is_queued:
            if self._idle_for(WAKE_AFTER) and not self._is_awake and self._instance.can(Capability.WAKES):
                self._is_awake = True
                await self._instance.agent.prompt(self._prompt)
            return None
        if record.is_stored and self._idle_for(UNANSWERED_AFTER):
            return self._failed("the message is stored, but nothing answers it: OpenCode may have restarted", "")
        # Accepted and not stored: a hook of a plugin may hold it up. It is not lost, and will run.
        return None

    def _idle_for(self, seconds: float) -> bool:
        return self._idle_since is not None and time.monotonic() - self._idle_since >= seconds

    async def _stop_broken(self) -> Outcome:
        with suppress(InstanceError):
            await self._instance.agent.interrupt(self._session_id)
        return self._failed(
            f"the model broke off {BROKEN_ENDS} answers in a row, so the turn was stopped: check the model's service",
            await self._text(),
        )

    def _trouble(self) -> str:
        """Say what keeps a running turn from going on."""
        if not self._instance.connected.is_set():
            return f"the connection to it is lost: {bare(self._instance.trouble)}"
        if self._session_id in self._instance.state.not_followed:
            return "so many sessions run there that this one is not followed; `read` shows it"
        if self.is_only_accepted:
            return "OpenCode has accepted the message and not begun with it"
        status = self._instance.state.statuses.get(self._session_id)
        return status.describe() if status is not None and status.kind == "retry" else ""

    def _what_helps(self, record: TurnRecord) -> str:
        """Say what helps where nothing was even begun: what the session is in fails each message to it."""
        if record.is_stored or record.answers or not (self._prompt.agent or self._prompt.model):
            return ""
        return _NOT_BEGUN.format(agent=f" {quote(self._prompt.agent, 60)}" if self._prompt.agent else "")

    def _failed(self, problem: str, text: str, note: str = "") -> Outcome:
        return Outcome("failed", self._session_id, text, problem, note=note)

    def _waiting(self, asks: list[Ask], text: str) -> Outcome:
        permission = any(isinstance(ask, Permission) for ask in asks)
        return Outcome("needs-permission" if permission else "needs-answer", self._session_id, text, "", tuple(asks))

    async def _record(self) -> TurnRecord:
        async with self._in_time():
            return await self._instance.agent.turn(self._session_id, self._prompt.id)

    def _live_text(self) -> str:
        return "\n\n".join(text for text in self._instance.state.live(self._session_id).parts.values() if text)

    async def _text(self) -> str:
        """Return what the agent said so far: what is finished by its records, what streams from memory."""
        try:
            record = await self._record()
        except (InstanceError, TimeoutError):
            return self._live_text()
        return _joined(record.answers, self._instance.state.live(self._session_id).parts)


def _joined(messages: Sequence[Message], live: dict[str, str] | None = None) -> str:
    texts = [
        part.text or (live or {}).get(part.id, "")
        for message in messages
        for part in message.parts
        if part.kind == "text"
    ]
    return "\n\n".join(text for text in texts if text)
