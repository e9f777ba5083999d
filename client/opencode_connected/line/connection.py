"""One connection to the relay, from the start of ssh to its certain end. Trying again is `keeper`'s.

The relay learns of this process's death by the end of its input: nothing but this process holds ssh's stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from opencode_connected import updating
from opencode_connected.line import protocol
from opencode_connected.line.beginning import Beginning
from opencode_connected.line.command import LineSettings, ssh_argv
from opencode_connected.line.errors import ForwardRefused, LineError, LineRefused
from opencode_connected.line.liveness import Liveness
from opencode_connected.line.pipes import Pipes
from opencode_connected.line.refusals import refused_by, turned_away
from opencode_connected.line.ssh_errors import (
    allocated_port,
    diagnose,
    is_forward_failure,
    is_old_ssh,
    last_words,
)
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from opencode_connected.registration import OwnRegistration

_READY_SECONDS: Final = 45.0
"""Start of ssh to `ready`. ssh gives up a silent network after 5 s; gcloud's own start takes long."""
BEGIN_SECONDS: Final = 8.0
"""The log-in to the first word of our command on a plain account; its shell reads the startup files meanwhile."""
MOST_BEGIN_SECONDS: Final = 40.0
"""The same for startup files that are slow. A launcher learns it, as what hangs is to be said soon."""
_ANSWER_SECONDS: Final = 10.0
"""The relay's silence while it owes an answer; its probe of the tunnel takes up to 8 s."""
_PONG_SECONDS: Final = 6.0
"""As above, after a ping; the probe takes up to 3 s. Pinged every 4 s, a half-open line is noticed within 10 s."""
_PORT_SECONDS: Final = 2.0
"""`ready` to ssh's word about the forward, which it says before it passes `ready` on."""
_GOODBYE_SECONDS: Final = 2.0
"""`bye` to the end of ssh: a round trip and a few file operations."""
_TERM_SECONDS: Final = 1.0
"""SIGTERM to SIGKILL."""
_INBOX_MESSAGES: Final = 4096
"""More registrations than any account has; a relay that sends more at once is none of ours."""


@dataclass(frozen=True)
class LinePulse:
    """What a ping brought back: OpenCode's health through the tunnel, and what the relay could not do meanwhile."""

    health: protocol.Health
    refusal: LineRefused | None


class LineConnection:
    """One ssh. Use it from one task at a time; `abort` may come from anywhere in between.

    Once the connection has ended, for whatever reason, everything raises `LineError` with that reason.
    """

    def __init__(self, settings: LineSettings, *, forward: int | None, begin_seconds: float = BEGIN_SECONDS) -> None:
        """`forward`: the relay's port of the tunnel, 0 for any, None for no tunnel.

        `begin_seconds`: how long a plain account may take from the log-in to the first word of our command.
        """
        self._settings = settings
        self._forward = forward
        # A provisioned relay, whose agent may have a crowd to serve, has the time that `open` has.
        self._beginning = Beginning(None if settings.is_enrolled else begin_seconds, self.abort)
        self._name = ""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._inbox: asyncio.Queue[protocol.RelayMessage | None] = asyncio.Queue()
        self._failure: LineError | None = None
        self._pings = 0
        self.liveness = Liveness(self._loop.time)
        self._pipes = Pipes(self, self._beginning)
        self.ended = asyncio.Event()
        """There is nothing to be had from this connection any more."""
        self.port = 0
        """The relay's port of the tunnel."""
        self.agent = ""
        """What answers at the relay's end: `sh`, or a provisioned relay's agent."""
        self.startup_output: str | None = None
        """The last words that the account's shell printed before our command ran, if it did: they belong nowhere."""
        self.client: str | None = None
        """The name that a provisioned relay knows this machine by: its instances' names begin with it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Start ssh, the relay's end and the tunnel. Takes up to 45 s.

        Raises:
            ForwardRefused: the relay does not listen for us.
            LineError: there is no connection, and why.

        """
        deadline = self._loop.time() + _READY_SECONDS
        try:
            ready = await self._start(deadline, old_ssh=False)
        except LineError:
            if not is_old_ssh(self._pipes.stderr):
                raise
            await self._reap()
            self._failure, self._inbox, self._pipes = None, asyncio.Queue(), Pipes(self, self._beginning)
            self.ended.clear()
            ready = await self._start(deadline, old_ssh=True)
        if ready.v != protocol.VERSION:
            raise LineError(
                f"the relay speaks version {ready.v} of the line, this launcher version {protocol.VERSION}",
                hop="relay",
                remedy=updating.HERE if ready.v > protocol.VERSION else updating.RELAY,
                permanent=True,
            )
        self.agent, self.client = ready.agent, ready.client
        self.startup_output = last_words(self._pipes.noise) or None
        if self._forward is not None:
            self.port = await self._learn_port(self._forward, ready)

    async def register(self, registration: OwnRegistration) -> protocol.RegisteredReply:
        """Write the registration on the relay, or take it over from an older connection of this instance.

        Raises:
            NameTaken: a living instance holds the name.
            RelayRefused: the relay says why not.
            LineError: the connection ended.

        """
        try:
            message = protocol.hello(self._settings.instance_id, registration)
        except ValueError as error:
            raise LineRefused(str(error), code="bad-hello", permanent=True) from error
        self._name = registration.name
        with self._asking(message):
            while True:
                answer = await self._answer(_ANSWER_SECONDS)
                if isinstance(answer, protocol.RegisteredReply):
                    return answer
                if isinstance(answer, protocol.RefusalReply):
                    raise refused_by(answer, registration.name)

    async def ping(self) -> LinePulse:
        """Ask how things are over there; raises `LineError` after 6 s without a sign of life."""
        self._pings += 1
        refusal = None
        with self._asking(protocol.ping(self._pings)):
            while True:
                message = await self._answer(_PONG_SECONDS)
                if isinstance(message, protocol.Pong) and message.n == self._pings:
                    if message.health == "ok":
                        self.liveness.carried()
                    is_unsure = message.health == "failed" and self.liveness.is_full()
                    return LinePulse("unverified" if is_unsure else message.health, refusal)
                if isinstance(message, protocol.RefusalReply):
                    refusal = refused_by(message, self._name)

    async def query(self) -> list[dict[str, object]]:
        """Return this account's registrations as the relay has them, unvalidated."""
        found: list[dict[str, object]] = []
        with self._asking(protocol.QUERY):
            while not isinstance(message := await self._answer(_ANSWER_SECONDS), protocol.End):
                if isinstance(message, protocol.RegistrationSeen):
                    found.append(message.file)
                elif isinstance(message, protocol.RefusalReply):
                    raise refused_by(message)
        return found

    async def probe(self) -> protocol.Health:
        """Try the tunnel without registering."""
        with self._asking(protocol.probe(self.port)):
            while True:
                message = await self._answer(_ANSWER_SECONDS)
                if isinstance(message, protocol.Probed) and message.port == self.port:
                    return message.health
                if isinstance(message, protocol.RefusalReply):
                    raise refused_by(message)

    async def bye(self) -> None:
        """Take the registration back, and end."""
        self._send(protocol.BYE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.ended.wait()
        await self.close()

    def abort(self, reason: LineError) -> None:
        """End the connection now: whatever waits for it raises `reason`."""
        if self._failure is None:
            self._failure = reason
            self._inbox.put_nowait(None)
            self.ended.set()
        self._beginning.stop()
        self._signal(signal.SIGTERM)

    async def close(self) -> None:
        """End ssh and whatever a wrapper started beside it. When this returns, or is cancelled, they are gone."""
        self.abort(LineError("the line was closed", hop="lost"))
        await self._reap()

    def over(self, pipes: Pipes) -> None:
        """Take note that the ssh of `pipes` has ended, or its output has."""
        if pipes is self._pipes:
            status = self._transport.get_returncode() if self._transport else None
            output = [*pipes.noise, *pipes.stderr]
            who = self._settings
            self.abort(
                diagnose(
                    output,
                    status,
                    has_begun=self._beginning.is_over,
                    is_enrolled=who.is_enrolled,
                    command=who.command_name,
                )
            )

    def asked(self) -> None:
        """Send the relay program: the account's sh runs our command and has asked for it, which nobody else can."""
        if self._failure is None:
            self._send(protocol.program(self._settings.registry_dir, self._settings.provisioned_mark))

    def heard(self) -> None:
        """Take note of bytes from the relay: the line carries from there to here."""
        self.liveness.heard()

    @property
    def pid(self) -> int | None:
        """The process of ssh, or of the wrapper around it."""
        return self._transport.get_pid() if self._transport else None

    def received(self, message: protocol.RelayMessage) -> None:
        """Take a message of the relay's."""
        if isinstance(message, protocol.Pong) and message.n == protocol.BEAT:
            self.liveness.beat()
        elif self._inbox.qsize() >= _INBOX_MESSAGES:
            self.abort(LineError("the relay sends without end", hop="relay", permanent=True))
        elif self._failure is None:
            self._inbox.put_nowait(message)

    async def _reap(self) -> None:
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(_TERM_SECONDS):
                await self._pipes.exited.wait()
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._transport.close()

    async def _start(self, deadline: float, *, old_ssh: bool) -> protocol.Ready:
        argv = ssh_argv(self._settings, self._forward, self._beginning.nonce, old_ssh=old_ssh)
        pipes = self._pipes
        try:
            self._transport, _ = await self._loop.subprocess_exec(lambda: pipes, *argv, start_new_session=True)
        except OSError as error:
            raise LineError(
                f"{printable(argv[0])} cannot be started: {error.strerror}",
                hop="command",
                remedy=f"{self._settings.command_name} must begin with an installed program, such as ssh",
                permanent=True,
            ) from error
        while True:
            message = await self._receive(deadline)
            if isinstance(message, protocol.Ready):
                return message
            if isinstance(message, protocol.RefusalReply):
                raise turned_away(message, is_enrolled=self._settings.is_enrolled)

    async def _learn_port(self, asked: int, ready: protocol.Ready) -> int:
        if asked:
            # Success is silent. A failure was said before the relay's first word, so it has been read by now. Where
            # this process was too busy to listen from the start, both were read together, and told in either order.
            await asyncio.sleep(0)
            if any(is_forward_failure(line, asked) for line in self._pipes.stderr):
                raise ForwardRefused(asked, ready.ports)
            return asked
        deadline = self._loop.time() + _PORT_SECONDS
        while True:
            self._pipes.stderr_came.clear()
            for line in self._pipes.stderr:
                if port := allocated_port(line, self._settings.local_port, self._settings.socket):
                    return port
                if is_forward_failure(line, 0):
                    raise ForwardRefused(0, ready.ports)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._pipes.stderr_came.wait()
            except TimeoutError:
                name = self._settings.command_name
                raise LineError(
                    "ssh does not tell the tunnel's port",
                    hop="forward",
                    remedy=f"the program of {name} must pass on ssh's stderr, and not make ssh quiet",
                    permanent=True,
                ) from None

    @contextlib.contextmanager
    def _asking(self, message: bytes) -> Iterator[None]:
        """Send a question. Its answers are for `_answer`."""
        self._send(message)
        with self.liveness.asking():
            yield

    async def _answer(self, patience: float) -> protocol.RelayMessage:
        """Return the next message; raises `LineError` once the relay is silent for `patience`, in seconds."""
        while True:
            deadline = self.liveness.deadline(patience)
            try:
                return await self._receive(deadline)
            except _Silence:
                if deadline == self.liveness.deadline(patience):  # nothing was heard meanwhile
                    raise

    def _send(self, message: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._transport is not None:
            stdin = self._transport.get_pipe_transport(0)
            if isinstance(stdin, asyncio.WriteTransport):
                stdin.write(message)

    async def _receive(self, deadline: float) -> protocol.RelayMessage:
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._inbox.get()
        except TimeoutError:
            raise _Silence("the relay does not answer", hop="lost") from None
        if message is None:
            self._inbox.put_nowait(None)  # for whoever asks next
            raise self._failure or LineError("the line was closed", hop="lost")
        return message

    def _signal(self, number: signal.Signals) -> None:
        if self._transport is not None:
            # Its own session, so its own process group: gcloud and other wrappers leave children.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), number)


class _Silence(LineError):
    """The deadline passed."""
