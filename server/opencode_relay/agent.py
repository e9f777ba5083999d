"""The agent: one daemon that registers the instances of all enrolled clients.

Its service and its socket, `roles/relay_agent/templates`, give it what it rests on: connections that wait while it
restarts, CAP_KILL to end sessions of the tunnel's account and nothing else, the sight of others' processes and of
the kernel's listeners (netlink), a watchdog that kills it when it hangs, and an empty registry whenever it is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Final

from opencode_relay import systemd
from opencode_relay.arrival import AskedByRoot, NotASession, receive
from opencode_relay.channel import Channel
from opencode_relay.conversation import GOODBYE, Conversation, refuse
from opencode_relay.enrolled import Enrolled
from opencode_relay.limits import NAMELESS, ClientLog
from opencode_relay.listeners import Listeners
from opencode_relay.protocol import LineRefusal
from opencode_relay.reaper import Reaper
from opencode_relay.registrar import Registrar

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from opencode_relay.arrival import Arrival
    from opencode_relay.clients import EnrolledMachine
    from opencode_relay.processes import Identity
    from opencode_relay.registrar import RegistrarEntry
    from opencode_relay.settings import RelaySettings

log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 1.0
"""Between two looks at who is enrolled."""
_SWEEP_EVERY: Final = 2
"""Looks at processes and ports, in looks at who is enrolled."""
_LEAVE_SECONDS: Final = 2.0
"""For a client that was told something to hear it and to hang up by itself."""
_GOODBYE_SECONDS: Final = 0.5
"""How long a goodbye note is left for readers of the directory."""
_ACCEPT_AGAIN_SECONDS: Final = 1.0
_NOT_ENROLLED: Final = "it is not enrolled any more"


class _Session:
    """What the agent keeps of one session."""

    def __init__(self, arrival: Arrival, conversation: Conversation) -> None:
        self.identity = arrival.identity
        self.connection = arrival.connection
        self.conversation = conversation
        self.ended_because = ""
        self._task = asyncio.current_task()

    def end(self, reason: str) -> None:
        """End it from outside."""
        if not self.ended_because and self._task is not None:
            self.ended_because = reason
            self._task.cancel()


class RelayAgent:
    """Serves until it is told to stop by SIGTERM or SIGINT."""

    def __init__(self, settings: RelaySettings, clients_file: Path, listener: socket.socket, tunnel_uid: int) -> None:
        self._block_size = settings.block_size
        self._ports = settings.ports
        self._listener = listener
        self._uid = tunnel_uid
        self._loop = asyncio.get_running_loop()
        self._log = ClientLog()
        self._registrar = Registrar(
            settings.registry_dir, self._log, lambda clear: self._loop.call_later(_GOODBYE_SECONDS, clear)
        )
        self._enrolled = Enrolled(clients_file)
        self._reaper = Reaper(tunnel_uid, self._log)
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Empty the registry, then serve. Raises `OSError` if the directory cannot be emptied."""
        self._registrar.empty()
        self._listener.setblocking(False)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)
        systemd.notify("READY=1")
        try:
            # What one of them dies of ends the other, and then the agent: better a new one than half of one.
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(self._accept()), group.create_task(self._watch())]
                await stop.wait()
                for part in parts:
                    part.cancel()
        finally:
            systemd.notify("STOPPING=1")
            await self._stop()

    async def _stop(self) -> None:
        for session in self._sessions:
            session.end("the agent stops")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._registrar.empty()
        self._log.count(at_once=True)

    async def _accept(self) -> None:
        while True:
            try:
                waiter, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                log.error("no session can be taken: %s", error.strerror)  # noqa: TRY400 # not ours to debug
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            task = asyncio.create_task(self._receive(waiter))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a session ended by a fault of the agent", exc_info=error)

    async def _receive(self, waiter: socket.socket) -> None:
        """Take a session over from its process, which waits as long as `waiter` is open."""
        with waiter:
            waiter.setblocking(False)
            try:
                arrival = await receive(waiter, self._uid)
            except AskedByRoot:
                return
            except NotASession as reason:
                self._log.write(logging.WARNING, NAMELESS, "refused a connection to the agent's socket: %s", reason)
                return
            with arrival.connection as connection:
                try:
                    with waiter, closing(Channel(arrival.incoming, arrival.outgoing)) as channel:
                        patience = await self._serve(arrival, channel)
                    await asyncio.sleep(patience)
                finally:
                    connection.signal()

    async def _serve(self, arrival: Arrival, channel: Channel) -> float:
        """Hold the conversation; return for how many seconds the client may hang up by itself."""
        identity = arrival.identity
        try:
            client = self._admit(identity)
        except LineRefusal as refusal:
            text = "refused client %s from %s: %s"
            self._log.write(logging.WARNING, identity.client, text, identity.client, arrival.address, refusal)
            await refuse(channel, refusal)
            return _LEAVE_SECONDS
        self._log.write(logging.INFO, client.name, "client %s connected from %s", client.name, arrival.address)
        conversation = Conversation(
            client,
            channel,
            ends=arrival.ends,
            tunnel_uid=self._uid,
            registrar=self._registrar,
            journal=self._log,
            superseded=self._superseded,
        )
        session = _Session(arrival, conversation)
        self._sessions.add(session)
        reason = "the agent failed"
        try:
            reason = await conversation.hold()
        except asyncio.CancelledError:
            if not session.ended_because:
                raise
            reason = session.ended_because
        finally:
            self._sessions.remove(session)
            self._farewell(session, arrival.address, reason)
        return _LEAVE_SECONDS if reason == GOODBYE else 0.0

    def _admit(self, identity: Identity) -> EnrolledMachine:
        self._refresh()
        client = self._enrolled.find(identity)
        if not self._enrolled.is_known:
            raise LineRefusal("unavailable", "the relay cannot read who is enrolled; its agent's journal says why")
        if client is None:
            raise LineRefusal("not-allowed", "this key is not enrolled any more: ask the relay's administrator")
        limit = 2 * self._block_size
        if sum(session.identity.client == client.name for session in self._sessions) >= limit:
            raise LineRefusal("unavailable", f"client {client.name} has {limit} connections open, which is the limit")
        return client

    def _farewell(self, session: _Session, address: str, reason: str) -> None:
        self._refresh()  # whoever revoked the key has ended the connection first
        if self._enrolled.find(session.identity) is None:
            reason = _NOT_ENROLLED
        entry = session.conversation.entry
        what = f", instance {entry.name} on port {entry.port}" if entry else ""
        client = session.identity.client
        self._log.write(logging.INFO, client, "client %s from %s%s is gone: %s", client, address, what, reason)
        if entry:
            self._registrar.release(entry)

    def _superseded(self, older: RegistrarEntry) -> None:
        for session in self._sessions:
            if session.conversation.entry is older:
                session.end("a newer connection of the instance took over")

    async def _watch(self) -> None:
        for count in itertools.count():
            systemd.watchdog()
            self._log.count()
            self._refresh()
            if count % _SWEEP_EVERY == 0:
                self._sweep()
            await asyncio.sleep(_WATCH_SECONDS)

    def _refresh(self) -> None:
        if self._enrolled.refresh():
            for session in self._sessions:
                if self._enrolled.find(session.identity) is None:
                    session.end(_NOT_ENROLLED)

    def _sweep(self) -> None:
        listeners = Listeners(self._ports)
        for session in self._sessions:
            entry = session.conversation.entry
            if entry and listeners.verdict(entry.port, self._uid) != "ok":
                session.end(f"port {entry.port} is not its tunnel's any more")
        served = [session.connection for session in self._sessions]
        known = {pid for connection in served for pid in (connection.pid, connection.monitor)}
        self._reaper.sweep(known, self._loop.time())
