"""Who listens on which TCP port of this machine, by the kernel's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

_LISTEN: Final = "0A"
# 127.0.0.1 as the kernel prints it on either byte order.
_LOOPBACK: Final = frozenset({"0100007F", "7F000001"})

Verdict = Literal["ok", "exposed", "foreign"]
"""`ok`: the user listens on 127.0.0.1 alone; `exposed`: elsewhere (too); `foreign`: the user does not listen."""


class Listeners:
    """The table as it was at one moment."""

    def __init__(self) -> None:
        self._by_port: dict[int, list[tuple[str, int]]] = {}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                lines = Path(table).read_text("ascii").splitlines()
            except FileNotFoundError:  # a kernel without IPv6
                continue
            for line in lines:
                if f" {_LISTEN} " in line[:120]:
                    self._add(line.split())

    def _add(self, columns: list[str]) -> None:
        if columns[3] == _LISTEN:
            address, _, port = columns[1].rpartition(":")
            self._by_port.setdefault(int(port, 16), []).append((address, int(columns[7])))

    def verdict(self, port: int, uid: int) -> Verdict:
        """Say whether user `uid` alone decides what answers on 127.0.0.1:`port`, and only there."""
        # Another user's listener on another address is no concern of a reader of 127.0.0.1, and no reason to refuse.
        own = {address for address, owner in self._by_port.get(port, ()) if owner == uid}
        if own - _LOOPBACK:
            return "exposed"
        return "ok" if own else "foreign"

    def free(self, ports: range) -> list[int]:
        """Return those of `ports` on which nobody listens."""
        return [port for port in ports if port not in self._by_port]
