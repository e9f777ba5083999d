"""One OpenCode 1 server, as its guard sees it: at one port, for one directory."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from opencode_connected.guard.policy import OpenedDirectory, Policy
from opencode_connected.guard.upstream import Target
from opencode_connected.loopback import HOST
from opencode_connected.text import as_utf8

if TYPE_CHECKING:
    from opencode_connected.agents.listening import OwnListener, SeenListener
    from opencode_connected.guard.policy import Right
    from opencode_connected.loopback import LoopbackEndpoint


class Single:
    """An upstream (`guard.upstream.Upstream`) that never moves, and its policy."""

    def __init__(self, endpoint: LoopbackEndpoint, rights: frozenset[Right]) -> None:
        authorization = None
        if endpoint.credentials:
            token = base64.b64encode(":".join(endpoint.credentials).encode()).decode()
            authorization = f"Basic {token}"
        self._url = f"http://{HOST}:{endpoint.port}"
        self._authorization = authorization
        self._rights = rights
        self._target: Target | None = None
        self._seen: SeenListener | None = None
        self._directories: tuple[OpenedDirectory, ...] = ()

    def answers(self, version: str, directory: str, name: str, seen: SeenListener | None = None) -> None:
        """Take note that the server answers, where it works, and what that is called; `seen`: what listens there."""
        self._seen = seen or self._seen
        self._target = Target(self._url, self._authorization, 1, version)
        self._directories = (OpenedDirectory(as_utf8(directory), name, opened=True),)

    def policy(self) -> Policy:
        """Return what may come from afar."""
        return Policy(self._rights, self._directories)

    async def target(self) -> Target | None:
        """Return where the server is; None until it answers, and once something else may listen there."""
        return self._target if self._seen is None or self._seen.is_there() else None

    async def moved(self, seen: Target) -> Target | None:
        """Return the same: it ends with the launcher."""
        del seen
        return await self.target()


class Watched(Single):
    """A server that somebody else starts and ends: it is reached only while a process of this user has its port."""

    def __init__(self, endpoint: LoopbackEndpoint, rights: frozenset[Right], listener: OwnListener) -> None:
        super().__init__(endpoint, rights)
        self._listener = listener

    async def target(self) -> Target | None:
        """Return where the server is; None while it does not run, whoever else has its port."""
        is_there = await self._listener.is_there_now()
        return await super().target() if is_there else None
