"""How instances are found and reached. Nothing above this interface knows of files, ports or tunnels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping


START_ONE: Final = "start one with `opencode-connected` on the machine that you want to reach"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one agent can be reached and how, as its transport last heard it.

    `url`, `headers` and `tls` are trusted (the transport made them); the other strings come from the agent's machine.
    """

    name: str
    url: str
    """`http://HOST:PORT` or `https://…`, perhaps with a path before the agent's own; no slash at the end."""
    hostname: str
    directory: str
    client: str | None = None
    revision: str = ""
    """Changes with each new registration, also when all else is the same: the instance must be contacted afresh."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """How an https endpoint proves itself; None: by the system's certificates."""

    @property
    def machine(self) -> str:
        """What its machine is called: by the relay that enrolled it, or else by itself."""
        return self.client or self.hostname

    @property
    def short_machine(self) -> str:
        """The same in whatever network it is: what it calls itself may end with the name of that."""
        return self.client or self.hostname.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Appeared:
    """An instance is there, or is now somewhere else: the endpoint replaces an older one of that name."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Departed:
    """An instance is gone. `clean`: it said goodbye, so that nobody needs to be told that it is missing."""

    name: str
    clean: bool


@dataclass(frozen=True, slots=True)
class ScanDone:
    """All that was there at the start has been told; sent once."""


Change = Appeared | Departed | ScanDone


class Transport(ABC):
    """One way to find and reach instances."""

    @abstractmethod
    def changes(self) -> AsyncIterator[Change]:
        """Yield what is there, then every change, for ever; faults of the source are waited out, not raised."""

    @abstractmethod
    def report_refused(self, endpoint: Endpoint) -> None:
        """Hear that nothing listened at `endpoint` on a check; the transport may come to forget it."""

    @abstractmethod
    def report_alive(self, endpoint: Endpoint) -> None:
        """Hear that something answered, or at least listened, at `endpoint`."""

    def absence(self) -> str:
        """Say that no instance is there, as far as can be seen why, and the next step; one line, for people."""
        return f"no instance is registered; {START_ONE}"

    @abstractmethod
    def problems(self) -> list[str]:
        """What keeps instances from being seen (unreadable directory, bad files), a line each, for people."""
