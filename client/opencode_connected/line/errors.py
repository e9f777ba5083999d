"""What can go wrong on the line. Each error says in one line what happened, and in `remedy` the next step.

LineError               ssh, the network or the relay failed; `permanent` where trying again does not help
├── NotBegun            the relay lets us in, and does not begin our command
├── ForwardRefused      the relay does not listen for us; `free_ports` may say where it would
└── RelayRefused        the relay understood, and refuses; `code` is the contract's
    └── NameTaken       a living instance holds the name; `holder` says who
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opencode_connected.line.protocol import ErrorCode

Hop = Literal["command", "network", "host-key", "authentication", "account", "forward", "relay", "lost", "local"]
"""Where it broke, in the order in which a connection meets them; "account" is one that the relay lets in and will not
serve, "lost" is a line that was up, "local" is OpenCode itself."""


class LineError(Exception):
    """The line is not there. `hop` is where it broke; `permanent`: nothing changes until a person acts."""

    def __init__(self, message: str, *, hop: Hop, remedy: str = "", permanent: bool = False) -> None:
        super().__init__(message)
        self.hop: Hop = hop
        self.remedy = remedy
        self.permanent = permanent


class NotBegun(LineError):
    """The relay let us in `seconds` ago and has not begun our command."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the relay lets this account in, but has not begun our command after {seconds:.0f} s",
            hop="account",
            remedy="a forced command of the account, or a startup file of its shell (such as `exec zsh` in "
            "~/.bashrc), must let pass what is run over ssh",
        )


class ForwardRefused(LineError):
    """The relay does not listen on `port` (0: on any port). `free_ports`: those that it offers instead, or None.

    `why`: the relay's own words, where it has any.
    """

    def __init__(self, port: int, free_ports: tuple[int, ...] | None, why: str = "") -> None:
        remedy = "its sshd needs `AllowTcpForwarding remote` (or `yes`), and the port must be free and permitted"
        if free_ports == ():
            message = "all ports that the relay has for this machine are in use"
            remedy = "end an instance, or have the relay's administrator give its clients larger blocks"
        elif port:
            message = f"the relay does not listen on port {port} for us"
        else:
            message = "the relay does not listen for us"
        super().__init__(why or message, hop="forward", remedy=remedy, permanent=port == 0 and free_ports is None)
        self.port = port
        self.free_ports = free_ports


class LineRefused(LineError):
    """The relay answered a request with an error message."""

    def __init__(
        self, message: str, *, code: ErrorCode, hop: Hop = "relay", remedy: str = "", permanent: bool = False
    ) -> None:
        super().__init__(message, hop=hop, remedy=remedy, permanent=permanent)
        self.code: ErrorCode = code


class LineNameTaken(LineRefused):
    """A living instance holds `name`. `holder` describes it for a person."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"the name {name!r} is held by {holder}",
            code="name-taken",
            remedy="end that instance, or set INSTANCE_NAME to another name",
            permanent=True,
        )
        self.name = name
        self.holder = holder
