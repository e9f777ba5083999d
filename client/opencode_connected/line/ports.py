"""Which of the relay's ports a tunnel asks for."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_connected.line.errors import ForwardRefused


_MAX_IN_A_ROW = 16
"""Refusals after which it is the forward that is refused, not a port. Each try is a log-in, and relays count."""


class PortChoice:
    """Any port on a plain account, one of a block where this client is enrolled. Stays with one that worked."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        """`ports`: the block, empty for any port."""
        self._ports = _shuffled(ports)
        self._next = 0
        self._refusals = 0

    @property
    def port(self) -> int:
        """The port to ask for; 0 for any."""
        return self._ports[self._next] if self._ports else 0

    def refused(self, error: ForwardRefused) -> bool:
        """Choose another port; False if all, or many, have been refused in a row."""
        if error.free_ports is not None and not set(error.free_ports) <= set(self._ports):
            self._ports, self._next, self._refusals = _shuffled(error.free_ports), 0, 0
            return bool(self._ports)
        if not self._ports:
            return False
        self._next = (self._next + 1) % len(self._ports)
        self._refusals += 1
        if self._refusals < min(len(self._ports), _MAX_IN_A_ROW):
            return True
        error.permanent = self._refusals >= _MAX_IN_A_ROW  # a person has to act
        self._refusals = 0
        return False

    def worked(self) -> None:
        """Stay with this port."""
        self._refusals = 0


def _shuffled(ports: tuple[int, ...]) -> tuple[int, ...]:
    # Several instances of one client share a block: each begins elsewhere.
    return tuple(random.sample(ports, len(ports)))
