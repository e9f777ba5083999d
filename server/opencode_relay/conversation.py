"""One client's session: the line protocol, from `ready` to the reason why it is over."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from opencode_common.bucket import Bucket
from opencode_relay import protocol
from opencode_relay.channel import EndlessLine
from opencode_relay.listeners import Listeners
from opencode_relay.probe import ANSWER_SECONDS, PONG_SECONDS, probe
from opencode_relay.protocol import LineRefusal
from opencode_relay.registrar import validated

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_relay.channel import Channel
    from opencode_relay.clients import EnrolledMachine
    from opencode_relay.limits import ClientLog
    from opencode_relay.probe import Health
    from opencode_relay.registrar import Registrar, RegistrarEntry
    from opencode_relay.traffic import ConnectionEnds

log = logging.getLogger(__name__)

_SILENCE_SECONDS: Final = 12.0
"""Without a message; launchers ping every 4 s, those of before every 5 s. The same for one that does not read."""
_BEAT_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 5.0
"""Without a message, after which the kernel is asked what it receives."""
_TRAFFIC_BYTES: Final = 1024
"""Received between two beats: what a message may wait behind. Less is ssh's keep-alive, which says nothing about the
launcher."""
_BURST: Final = 120
"""Messages at once: a launcher may try a hundred names in a row."""
_PER_SECOND: Final = 5.0
"""Messages after that. The rest waits in the client's own connection."""
_RENAMES: Final = 5
"""Of a session, at once. A launcher's only reason is a name that is taken, which it hears before it has one."""
_RENAMES_PER_MINUTE: Final = 5
GOODBYE: Final = "it was quit"


class Over(Exception):
    """The session is over; the text says why."""


class Conversation:
    """Speaks with one session."""

    def __init__(
        self,
        client: EnrolledMachine,
        channel: Channel,
        *,
        ends: ConnectionEnds | None,
        tunnel_uid: int,
        registrar: Registrar,
        journal: ClientLog,
        superseded: Callable[[RegistrarEntry], None],
    ) -> None:
        """`ends`: of the TCP connection, if known.

        `superseded` is told which older registrations of the same instance the new one took the place of.
        """
        self._client = client
        self._channel = channel
        self._ends = ends
        self._tunnel_uid = tunnel_uid
        self._registrar = registrar
        self._log = journal
        self._superseded = superseded
        self._renames = Bucket(_RENAMES, _RENAMES_PER_MINUTE / 60)
        self.entry: RegistrarEntry | None = None
        """What this session registered."""

    async def hold(self) -> str:
        """Answer until the session is over; return why it is."""
        try:
            await self._send(self._ready())
        except Over as over:
            return str(over)
        beating = asyncio.create_task(self._beat())
        try:
            return await self._talk()
        finally:
            beating.cancel()

    def _ready(self) -> bytes:
        return protocol.encode(
            type="ready",
            v=protocol.VERSION,
            agent=protocol.AGENT,
            client=self._client.name,
            peer=self._ends.relay if self._ends else None,
            ports=Listeners(self._client.ports).free(self._client.ports),
        )

    async def _talk(self) -> str:
        pace = Bucket(_BURST, _PER_SECOND)
        try:
            while True:
                line = await self._receive()
                try:
                    await self._answer(protocol.decode(line))
                except LineRefusal as refusal:
                    await self._send(protocol.error(refusal))
                await asyncio.sleep(pace.borrow())
        except Over as over:
            return str(over)

    async def _beat(self) -> None:
        """Be heard, whatever else is going on: a pong may be long in coming where its ping waits behind data."""
        while True:
            self._channel.offer(protocol.BEAT)
            await asyncio.sleep(_BEAT_SECONDS)

    async def _receive(self) -> bytes:
        try:
            line = await self._next_line()
        except EndlessLine:
            raise Over("it sent a line without end") from None
        except OSError as error:
            raise Over(f"its connection broke: {error.strerror}") from error
        if line is None:
            raise Over("its connection ended")
        return line

    async def _next_line(self) -> bytes | None:
        """Wait for a line, as long as there is a sign of life: see `_TRAFFIC_BYTES`."""
        silence = 0.0
        before = None
        while silence < _SILENCE_SECONDS:
            pause = min(_BEAT_SECONDS if silence else _QUIET_SECONDS, _SILENCE_SECONDS - silence)
            try:
                async with asyncio.timeout(pause):
                    return await self._channel.read_line()
            except TimeoutError:
                silence += pause
            now = self._ends.bytes_received() if self._ends else None
            if now is not None and before is not None and now >= before + _TRAFFIC_BYTES:
                silence = pause
            before = now
        raise Over(f"it said nothing for {_SILENCE_SECONDS:.0f} s")

    async def _send(self, message: bytes) -> None:
        await _send(self._channel, message)

    async def _answer(self, message: protocol.Message | None) -> None:
        match message:
            case protocol.Hello():
                await self._register(message)
            case protocol.Ping():
                await self._pong(message)
            case protocol.Probe():
                port = self._own_port(message.port)
                await self._send(protocol.encode(type="probed", port=port, health=await probe(port, ANSWER_SECONDS)))
            case protocol.Query():
                for entry in self._registrar.of_client(self._client.name):
                    file = entry.registration.model_dump(by_alias=True, exclude_none=True)
                    await self._send(protocol.encode(type="registration", file=file))
                await self._send(protocol.encode(type="end"))
            case protocol.Bye():
                if self.entry:
                    self._registrar.say_goodbye(self.entry)
                raise Over(GOODBYE)

    async def _register(self, hello: protocol.Hello) -> None:
        self._own_port(hello.file.get("port"))
        registration = validated(self._client.name, hello.file)
        health = await probe(registration.port, ANSWER_SECONDS)
        if health == "failed":
            raise LineRefusal(
                "not-carrying", f"OpenCode does not answer through port {registration.port} of the relay"
            )
        # From here on without waiting: what is checked must be so when it is written.
        before = self.entry
        if before and before.name != registration.name and not self._renames.take():
            raise LineRefusal(
                "unavailable",
                f"this instance has had too many names within a minute: it stays {before.name} for now",
            )
        self.entry, older = self._registrar.register(self._client.name, hello.id, registration)
        if before is None or (before.name, before.port) != (self.entry.name, self.entry.port):
            text = "client %s registered %s on port %d"
            self._log.write(
                logging.INFO, self._client.name, text, self._client.name, self.entry.name, self.entry.port
            )
        for entry in older:
            if entry is not before:
                self._superseded(entry)
        if before is not None:
            self._registrar.say_goodbye(before)  # of another instance id
        await self._send(protocol.encode(type="registered", name=self.entry.name, health=health))

    async def _pong(self, ping: protocol.Ping) -> None:
        health: Health = "unverified"
        if self.entry is not None:
            try:
                self._registrar.confirm(self.entry)
            except LineRefusal as refusal:
                await self._send(protocol.error(refusal))
            health = await probe(self.entry.port, PONG_SECONDS)
        await self._send(protocol.encode(type="pong", n=ping.n, health=health))

    def _own_port(self, port: object) -> int:
        """Return `port` if it is this client's, and sshd listens there for it."""
        if not isinstance(port, int) or port not in self._client.ports:
            raise LineRefusal(
                "bad-port",
                f"client {self._client.name} has the ports {self._client.first}-{self._client.last} of this relay",
            )
        match Listeners(range(port, port + 1)).verdict(port, self._tunnel_uid):
            case "exposed":
                raise LineRefusal(
                    "exposed", f"port {port} listens beyond the relay's loopback: its sshd needs GatewayPorts no"
                )
            case "foreign":
                raise LineRefusal("bad-port", f"no tunnel listens on port {port} of the relay")
        return port


async def refuse(channel: Channel, refusal: LineRefusal) -> None:
    """Say why there will be no conversation."""
    try:
        await _send(channel, protocol.error(refusal))
    except Over as over:
        log.debug("the refusal was not heard: %s", over)


async def _send(channel: Channel, message: bytes) -> None:
    try:
        async with asyncio.timeout(_SILENCE_SECONDS):
            await channel.write(message)
    except TimeoutError:
        raise Over("it does not read what it is told") from None
    except OSError as error:
        raise Over("its connection ended") from error
