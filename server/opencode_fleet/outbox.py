"""Messages that wait in the journal until they can be sent: accepted, listed, cancelled, expired.

Each step of a message is written durably, together with the entry that tells of it, and only from the step before.
So whoever comes second, after a crash or in another copy of the server, finds that somebody else was there.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from opencode_common.text import one_line, quote_name
from opencode_fleet.errors import Refused
from opencode_fleet.kept_files import KeptFiles
from opencode_fleet.prompt_ids import new_prompt_id
from opencode_fleet.room import check_room
from opencode_journal.entries import (
    KEPT,
    MESSAGE,
    MESSAGE_ACCEPTED,
    MESSAGE_ANSWERED,
    MESSAGE_CANCELLED,
    MESSAGE_DELIVERED,
    MESSAGE_EXPIRED,
    MESSAGE_FAILED,
)
from opencode_journal.errors import NotKept

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from opencode_fleet.files import File
    from opencode_journal.entries import Entry
    from opencode_journal.journal import Journal

    Called = Callable[[str, str], str]

log = logging.getLogger(__name__)

REPEATED_WITHIN: Final = 600.0
"""Seconds in which the same words of the same person are the same message: a client repeats a call that was cut."""
MAX_ABOUT: Final = 80
_LOOKED_THROUGH: Final = 500
"""The newest entries among which it is looked what became of a message."""
_DAY: Final = 86_400
_MESSAGE: Final = f"{KEPT}message/"
_TEXT: Final = f"{KEPT}text/"
_ENDS: Final = {
    MESSAGE_ANSWERED: "was delivered, and its turn is done",
    MESSAGE_FAILED: "has failed",
    MESSAGE_EXPIRED: "has expired",
    MESSAGE_CANCELLED: "was cancelled before",
}

Step = Literal["waits", "sending", "sent"]


def _by_id(_instance: str, session_id: str) -> str:
    return session_id


class Draft(NamedTuple):
    """A message as a person wants it sent."""

    instance: str
    text: str
    by: str
    """Whose it is: the login of its caller."""
    session: str = ""
    """An id, words of a title, or `new`; empty: the one that is current by then."""
    agent: str = ""
    model: str = ""
    machine: str = ""
    directory: str = ""
    """The machine (its `Endpoint.short_machine`) and the directory of the instance; empty where not known."""
    files: tuple[File, ...] = ()
    """That go with it."""

    @property
    def digest(self) -> str:
        """What makes two drafts the same."""
        files = [part for file in self.files for part in (file.name, hashlib.sha256(file.content).hexdigest())]
        parts = (self.instance, self.text, self.by, self.session, self.agent, self.model, *files)
        said = "\0".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A message that waits or is on its way. Times are epoch seconds; see `Draft` for the rest."""

    handle: str
    """As `m3`: never given to anything else."""
    id: str
    """The id that it is posted under, however often that is tried."""
    instance: str
    by: str
    at: float
    expires: float
    about: str
    """Its beginning, one line."""
    size: int
    """Bytes of its text."""
    session: str = ""
    agent: str = ""
    model: str = ""
    machine: str = ""
    directory: str = ""
    step: Step = "waits"
    """`sending`: it may have arrived. `sent`: the agent took it."""
    to: str = ""
    """The session that was chosen for it, once one was."""
    files: tuple[str, ...] = ()
    """The names of those that go with it."""
    file_bytes: int = 0
    """Of its files, as long as they are kept."""

    @property
    def key(self) -> str:
        """What it is kept under; those of an instance are sent in the order of these."""
        return f"{int(self.handle[1:]):016d}"


_ADAPTER: Final = TypeAdapter(KeptMessage)


class Outbox:
    """The messages that one journal keeps.

    Args:
        journal: keeps them in its file, never in memory.
        days: after which a message expires.
        now: the time in epoch seconds.
    """

    def __init__(self, journal: Journal, days: int = 14, now: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._files = KeptFiles(journal)
        self._days = days
        self._now = now

    # -- what waits ------------------------------------------------------------------------------------------------

    def messages(self, instance: str | None = None) -> list[KeptMessage]:
        """Return all that wait or are on their way, of one instance or of all, in the order of their sending."""
        found = [_read(value) for _, value in sorted(self._journal.states(_MESSAGE).items())]
        return [each for each in found if each is not None and instance in {None, each.instance}]

    def counts(self) -> Counter[str]:
        """Return how many wait, by instance; those that run there by now do not."""
        return Counter(each.instance for each in self.messages() if each.step != "sent")

    def is_empty(self) -> bool:
        """Whether none is there."""
        return not self._journal.state_keys(_MESSAGE)

    def carried(self, instance: str, session_id: str) -> str:
        """Return the handle of the message whose turn the session runs; empty for none."""
        if self.is_empty():
            return ""
        own = (each for each in self.messages(instance) if each.step != "waits" and each.to == session_id)
        return next((each.handle for each in own), "")

    def text(self, message: KeptMessage) -> str:
        """Return what a message says. Raises `Refused`: it ended meanwhile."""
        text = self._journal.state(_TEXT + message.key)
        if not isinstance(text, str):
            raise Refused(f"{message.handle} waits no longer")
        return text

    def files(self, message: KeptMessage) -> tuple[File, ...]:
        """Return what goes with a message that was not delivered yet. Raises `Refused`: that is gone."""
        return self._files.files(message)

    # -- accepting and cancelling ----------------------------------------------------------------------------------

    def accept(self, draft: Draft, begun: str = "", to: str = "") -> KeptMessage:
        """Keep a message, on the disk before this returns.

        Args:
            draft: what it is.
            begun: the id under which it was posted before, if it may have arrived.
            to: the session that it was posted to then.

        Raises:
            Refused: there is no room, or it cannot be kept; nothing was.
        """
        at = self._now()

        def write() -> KeptMessage:
            if isinstance(again := self.repeated(draft), KeptMessage):
                return again  # another call was faster
            id_ = begun or new_prompt_id()
            message = KeptMessage(
                handle=self._journal.handle("m", draft.instance, id_),
                id=id_,
                instance=draft.instance,
                by=draft.by,
                at=at,
                expires=at + self._days * _DAY,
                about=one_line(draft.text, MAX_ABOUT),
                size=len(draft.text.encode(errors="surrogatepass")),
                session=draft.session,
                agent=draft.agent,
                model=draft.model,
                machine=draft.machine,
                directory=draft.directory,
                step="sending" if begun else "waits",
                to=to,
                files=tuple(file.name for file in draft.files),
                file_bytes=sum(len(file.content) for file in draft.files),
            )
            check_room(message, self.messages())
            self._set(message)
            self._journal.set_state(_TEXT + message.key, draft.text)
            self._files.keep(message, draft.files)
            self._tell(MESSAGE_ACCEPTED, message, digest=draft.digest)
            return message

        try:
            return _logged("kept", self._journal.together(write, durable=True))
        except NotKept as error:
            raise Refused(f"nothing was kept and nothing sent: {error}") from error
        except ValueError as error:  # of the journal's own bounds
            raise Refused(f"this is more than can be kept ({error}); nothing was kept and nothing sent") from error

    def repeated(self, draft: Draft) -> KeptMessage | str:
        """Return the message that the same draft has become lately, or what became of it; empty: it is a new one.

        What was cancelled is meant anew.
        """
        digest, now = draft.digest, self._now()
        for entry in reversed(self._journal.latest(_LOOKED_THROUGH, {MESSAGE_ACCEPTED})):
            if entry.data.get("digest") == digest and abs(now - entry.at) < REPEATED_WITHIN:
                handle = str(entry.data.get(MESSAGE, ""))
                message = self._find(handle)
                if message is not None:
                    return message
                end = self._end_of(handle)
                if end is not None and end.kind != MESSAGE_CANCELLED:
                    return f"{handle} {_ENDS[end.kind]}"
        return ""

    def cancel(self, handle: str, instance: str, by: str, called: Called = _by_id) -> KeptMessage:
        """Take back a message that waits.

        Args:
            handle: as `m3`.
            instance: what it must be for: a part of the name; empty for any.
            by: the login of who cancels it.
            called: returns what a person calls a session, by instance and id.

        Raises:
            Refused: it waits no longer, or never did; the message says what became of it.
        """
        handle = handle.strip().lower()

        def write() -> KeptMessage:
            message = self._find(handle)
            if message is None:
                raise Refused(self._why_not_cancelled(handle))
            if instance.strip().casefold() not in message.instance.casefold():
                raise Refused(f"{handle} is for {quote_name(message.instance)}; nothing was cancelled")
            if message.step == "sending":
                raise Refused(
                    f"{handle} is being sent to session {called(message.instance, message.to)} of "
                    f"{quote_name(message.instance)}, and may have arrived; it was not cancelled. `read` shows the "
                    "session, action 'stop' stops its turn"
                )
            if message.step == "sent":
                raise Refused(
                    f"{handle} was delivered to session {called(message.instance, message.to)} of "
                    f"{quote_name(message.instance)} and runs; it was not cancelled. Action 'stop' stops its turn"
                )
            self._remove(message, MESSAGE_CANCELLED, cancelled_by=by)
            return message

        try:
            return _logged("cancelled", self._journal.together(write, durable=True))
        except NotKept as error:
            raise Refused(f"nothing was cancelled: {error}") from error

    def _why_not_cancelled(self, handle: str) -> str:
        end = self._end_of(handle)
        if end is None:
            return f"no message that waits has the handle {one_line(handle, 20)!r}; `inbox` lists them"
        return f"{handle} for {quote_name(end.instance)} {_ENDS[end.kind]}; there is nothing to cancel"

    def _find(self, handle: str) -> KeptMessage | None:
        number = handle.removeprefix("m")
        if not (handle.startswith("m") and number.isascii() and number.isdecimal() and len(number) <= len("0" * 16)):
            return None
        value = self._journal.state(f"{_MESSAGE}{int(number):016d}")
        return None if value is None else _read(value)

    def _end_of(self, handle: str) -> Entry | None:
        entries = self._journal.latest(_LOOKED_THROUGH, frozenset(_ENDS))
        return next((entry for entry in reversed(entries) if entry.data.get(MESSAGE) == handle), None)

    # -- the steps of whoever sends them, which raise `NotKept` ----------------------------------------------------

    def begin(self, message: KeptMessage, session_id: str) -> KeptMessage | None:
        """Note that it is posted to this session next; None: it waits no longer, and must not be posted."""
        return self._step(message, {"waits", "sending"}, "sending", session_id)

    def put_back(self, message: KeptMessage) -> None:
        """Note that it surely did not arrive: it waits for the same session."""
        self._step(message, {"sending"}, "waits", message.to)

    def delivered(self, message: KeptMessage, **told: Any) -> KeptMessage | None:
        """Note that the agent took it; None: another copy has ended it. `told`: for its entry."""
        taken = self._step(message, {"sending"}, "sent", message.to, told)
        return None if taken is None else _logged("delivered", taken)

    def end(self, message: KeptMessage, kind: str, **told: Any) -> None:
        """Note how it ended, once. `told`: for its entry."""

        def write() -> bool:
            if self._find(message.handle) is None:
                return False
            self._remove(message, kind, **told)
            return True

        if self._journal.together(write, durable=True):
            _logged(kind.removeprefix("message-"), message)

    def expire(self, besides: Container[str]) -> None:
        """End what is too old. `besides`: instances to which something is being sent, or whose turns are followed."""
        now = self._now()
        for message in self.messages():
            if message.expires > now or (message.step != "waits" and message.instance in besides):
                continue
            if message.step == "waits":
                self.end(message, MESSAGE_EXPIRED, problem=f"nothing was sent in {self._days} days")
            elif message.step == "sending":
                self.end(message, MESSAGE_FAILED, problem="the line broke while it was sent: it may have arrived")
            else:
                self.end(message, MESSAGE_FAILED, problem="it was delivered, and how its turn ended was not seen")

    def _step(
        self, message: KeptMessage, before: set[Step], step: Step, session_id: str, told: dict[str, Any] | None = None
    ) -> KeptMessage | None:
        def write() -> KeptMessage | None:
            found = self._find(message.handle)
            if found is None or found.step not in before:
                return None
            next_ = replace(found, step=step, to=session_id, file_bytes=0 if step == "sent" else found.file_bytes)
            self._set(next_)
            if step == "sent":
                self._files.remove(next_)
                self._tell(MESSAGE_DELIVERED, next_, **(told or {}))
            return next_

        return self._journal.together(write, durable=True)

    # -- within a transaction --------------------------------------------------------------------------------------

    def _set(self, message: KeptMessage) -> None:
        self._journal.set_state(_MESSAGE + message.key, _ADAPTER.dump_python(message))

    def _remove(self, message: KeptMessage, kind: str, **told: Any) -> None:
        self._journal.set_state(_MESSAGE + message.key, None)
        self._journal.set_state(_TEXT + message.key, None)
        self._files.remove(message)
        self._tell(kind, message, **told)

    def _tell(self, kind: str, message: KeptMessage, **told: Any) -> None:
        data = {MESSAGE: message.handle, "about": message.about, "by": message.by}
        data |= {name: value for name, value in told.items() if value}
        self._journal.append(kind, message.instance, message.to, data=data)


def _logged(what: str, message: KeptMessage) -> KeptMessage:
    log.info("%s for %s, of %s: %s", message.handle, quote_name(message.instance), message.by, what)
    return message


def _read(value: object) -> KeptMessage | None:
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError:
        return None  # of a later version, which sends it
