"""Under which names tools are served, and where those names and the configuration's map of tools do not agree.

One server's tools keep their names. Of several, those of the server called `opencode` do, and the others' are
`SERVER_TOOL`. A server's name has no `_`, so that no two tools can have one name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gateway.calls.servers import OPENCODE, OPENCODE_COMMAND
from opencode_gateway.capabilities import CAPABILITIES, DEFAULT_TOOLS, OPENCODE_TOOLS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from opencode_gateway.calls.servers import Servers
    from opencode_gateway.capabilities import Capability


@dataclass(frozen=True)
class Compared:
    """Where the map and the servers do not agree: names as the gateway serves them, sorted."""

    missing: tuple[str, ...]
    """Listed by a capability of `gateway.json`, and no server has it."""
    unlisted: tuple[str, ...]
    """A server has it, and no capability lists it: it is nobody's."""
    silent: tuple[str, ...] = ()
    """Servers that told none of their tools."""
    ours: Mapping[str, Capability] = field(default_factory=dict)
    """Of `unlisted` those of the OpenCode server, as after an update, with where our own map has them."""

    def warnings(self) -> list[str]:
        """Return a line about each kind of difference, which says what to do."""
        return [line for line in (self.about_missing(), self.about_unlisted()) if line is not None]

    def about_missing(self) -> str | None:
        """Return a line that says what to do; None if nothing is missing."""
        if not self.missing:
            return None
        return f"`capabilities` of gateway.json lists what no server has: {', '.join(self.missing)}; take it out"

    def about_unlisted(self) -> str | None:
        """Return a line that says what to do; None if all are listed."""
        if not self.unlisted:
            return None
        told = f"no capability lists {', '.join(self.unlisted)}, so nobody may use it; "
        whose = {
            capability: ", ".join(name for name, needs in self.ours.items() if needs == capability)
            for capability in CAPABILITIES
        }
        places = "; ".join(f"{names} to {capability}" for capability, names in whose.items() if names)
        if not places:
            return f"{told}what people need belongs into `capabilities` of gateway.json"
        return f"{told}add what people need to `capabilities` of gateway.json: {places}"


class Names:
    """The names of the tools of `servers.json`."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._by_prefix = {self.prefix(server): server for server in servers}

    def prefix(self, server: str) -> str:
        """Return what stands before `_` in the names of a server's tools; nothing if they keep their names."""
        return "" if len(self._servers) == 1 or server == OPENCODE else server

    def server_of(self, tool: str) -> str:
        """Return the server that has `tool`, or would have it; nothing if none would."""
        return self._by_prefix.get(tool.partition("_")[0]) or self._by_prefix.get("", "")

    def serves(self, server: str, tool: str) -> bool:
        """Tell whether a server's tool, by its own name, is listed, and would not be taken for another server's."""
        listed = self._servers[server].tools
        first = "" if self.prefix(server) else tool.partition("_")[0]
        return (listed == "*" or tool in listed) and not (first and first in self._by_prefix)

    def served(self, server: str, tools: Iterable[str]) -> dict[str, str]:
        """Return under which names a server's tools are served, by their own."""
        return {tool: self._name(server, tool) for tool in tools if self.serves(server, tool)}

    def compared(self, tools: Mapping[Capability, Sequence[str]], told: Mapping[str, Collection[str]]) -> Compared:
        """Compare the map with the tools that servers `told`; of a server that told none nothing is said."""
        listed = {name for names in tools.values() for name in names}
        silent = self._servers.keys() - told.keys()
        there = {self._name(server, tool) for server, own in told.items() for tool in own}
        served = {name for server, own in told.items() for name in self.served(server, own).values()}
        missing = {name for name in listed - there if self.server_of(name) not in silent}
        if tools == DEFAULT_TOOLS:
            # Nobody wrote that, so that nobody can take anything out of it.
            missing = set()
        unlisted = sorted(served - listed)
        ours = {
            self._name(server, tool): capability
            for server in self.told_by_nature()
            for tool, capability in OPENCODE_TOOLS.items()
        }
        return Compared(
            tuple(sorted(missing)),
            tuple(unlisted),
            tuple(sorted(silent)),
            {name: ours[name] for name in unlisted if name in ours},
        )

    def _name(self, server: str, tool: str) -> str:
        prefix = self.prefix(server)
        return f"{prefix}_{tool}" if prefix else tool

    def told_by_nature(self) -> dict[str, frozenset[str]]:
        """Return the tools of those servers that need not be asked: the OpenCode server is part of this release."""
        return {
            name: frozenset(OPENCODE_TOOLS)
            for name, server in self._servers.items()
            if Path(server.command).name == OPENCODE_COMMAND
        }
