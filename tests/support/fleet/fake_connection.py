"""What an instance knows of its connection, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from opencode_fleet.instance import Instance

if TYPE_CHECKING:
    from opencode_fleet.connection import InstanceConnection


class FakeConnection:
    """A connection whose machine's owner lets `rights` through; None: not told."""

    def __init__(self, rights: frozenset[str] | None = None) -> None:
        self.rights = rights


def lone_instance(name: str = "laptop", rights: frozenset[str] | None = None) -> Instance:
    """Return an instance that nothing is behind."""
    return Instance(cast("InstanceConnection", FakeConnection(rights)), name, "/home/ann/api")
