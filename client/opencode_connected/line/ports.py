"""Which of the relay's ports a tunnel asks for."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_connected.line.errors import ForwardRefused


_MAX_IN_A_ROW = 16
"""Refusals after which it is the forward that is refused, not a port. Each try is a log-in, and relays count."""


class PortChoice:
    """Any port on a plain account, one of a block where this machine is enrolled. Stays with one that worked."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        """`ports`: the block, empty for any port."""
        # Several instances of one machine share a block: each begins elsewhere.
        self._ports = random.sample(ports, len(ports))
        self._refused: set[int] = set()
        self.port = self._ports[0] if self._ports else 0
        """The port to ask for; 0 for any."""

    def refused(self, error: ForwardRefused) -> bool:
        """Choose another port; False if all, or many, have been refused in a row.

        A relay that tells which ports are free is believed, whatever block this machine was told before.
        """
        self._refused.add(error.port)
        if error.free_ports:
            self._ports = random.sample(error.free_ports, len(error.free_ports))
        left = [] if error.free_ports == () else [port for port in self._ports if port not in self._refused]
        goes_on = bool(left) and len(self._refused) < _MAX_IN_A_ROW
        if not goes_on:
            error.permanent = error.permanent or len(self._refused) >= _MAX_IN_A_ROW  # a person has to act
            self._refused.clear()
        if left:
            self.port = left[0]
        return goes_on

    def worked(self) -> None:
        """Stay with this port."""
        self._refused.clear()
