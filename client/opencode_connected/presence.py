"""How an instance becomes visible: the interface, and the local registry directory as its simplest form."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from opencode_connected import names, processes
from opencode_connected.errors import LauncherError, NameTaken, RegistryRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guardian import Guardian
    from opencode_connected.registration import OwnRegistration
    from opencode_connected.registry import Owner, Registry

_LOOK_SECONDS = 1.0
"""How often the registration file is looked after."""
_LOOKS_PER_START_CHECK = 60
"""Looks between two questions to ps: the clock may have been set, and with it when this process "started"."""


@dataclass(frozen=True)
class WantedName:
    """The name to register as."""

    name: str
    is_default: bool
    """A default name gives way to a living holder (`-2` is added); an explicit one is insisted on."""


class Presence(ABC):
    """Makes one instance visible to the server, and keeps it so."""

    @abstractmethod
    async def prepare(self) -> None:
        """Do what can be done before OpenCode runs.

        Raises `LauncherError` for whatever would make starting it pointless.
        """

    @abstractmethod
    async def register(self, registration: OwnRegistration) -> OwnRegistration:
        """Register; return what was registered (the name may be another). `NameTaken` as its docstring says."""

    @abstractmethod
    async def keep(self) -> None:
        """Look after the registration until cancelled."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye and take everything back. Never raises for what cannot be reached any more."""


class LocalPresence(Presence):
    """A registration file on this machine, for a server that runs here too.

    `key` is what the guard at the registered port asks for, None if nothing of ours.
    `say` shows a line to the person before OpenCode takes the terminal; `log` takes what happens afterwards.
    """

    def __init__(
        self,
        registry: Registry,
        owner: Owner,
        wanted: WantedName,
        guardian: Guardian,
        *,
        key: str | None,
        say: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._owner = owner
        self._wanted = wanted
        self._guardian = guardian
        self._key = key
        self._say = say
        self._log = log
        self._claimed: str | None = None
        self._registration: OwnRegistration | None = None
        self._trouble: str | None = None

    async def prepare(self) -> None:
        """Claim the name, so that one that is taken is said before OpenCode starts."""
        if self._claimed is None:
            self._claimed = self._claim()

    async def register(self, registration: OwnRegistration) -> OwnRegistration:
        """Write the file under the claimed name."""
        if self._claimed is None:
            raise AssertionError("prepare comes before register")
        self._registration = registration.model_copy(update={"name": self._claimed})
        await asyncio.to_thread(self._publish)
        return self._registration

    async def keep(self) -> None:
        """Write the file again whenever it was swept away, and renew the owner's start if the clock was set."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            looks += 1
            if looks % _LOOKS_PER_START_CHECK == 0:
                start = await asyncio.to_thread(processes.start_of, self._owner.pid)
                self._owner = replace(self._owner, start=start)
            if not self._is_intact():
                await self._reassert()

    async def close(self) -> None:
        """Leave a goodbye note for readers to see, then remove the file."""
        if self._claimed is None:
            return
        goodbye = self._registration.closed_json().encode() if self._registration else None
        try:
            await asyncio.to_thread(self._registry.withdraw, self._claimed, self._owner.instance_id, goodbye=goodbye)
        except RegistryRefused as error:
            self._log(f"the registration could not be removed: {error}")

    def _claim(self) -> str:
        wanted = self._wanted
        for name in names.candidates(wanted.name) if wanted.is_default else [wanted.name]:
            # Told first: between claiming and telling, a killed launcher would leave the name behind.
            self._guardian.watch_registration(self._registry.path, name, self._owner.instance_id)
            try:
                self._registry.claim(name, self._owner)
            except NameTaken as taken:
                if not wanted.is_default:
                    raise NameTaken(f"{taken}: end it, or choose another INSTANCE_NAME") from taken
                continue
            if name != wanted.name:
                self._say(f"{wanted.name!r} is already running, so this one is {name!r}")
            return name
        raise LauncherError(f"too many instances are called {wanted.name!r}: set INSTANCE_NAME")

    def _publish(self) -> None:
        if self._registration:
            content = self._registration.to_json().encode()
            self._registry.publish(self._registration.name, content, self._owner, self._key)

    def _is_intact(self) -> bool:
        if self._registration is None:
            return True
        content = self._registration.to_json().encode()
        return self._registry.is_intact(self._registration.name, content, self._owner, self._key)

    async def _reassert(self) -> None:
        try:
            await asyncio.to_thread(self._publish)
        except (NameTaken, RegistryRefused) as error:
            outcome = f"the registration is gone and cannot be written again: {error}"
            if outcome != self._trouble:  # once, not every second
                self._log(outcome)
            self._trouble = outcome
        else:
            self._trouble = None
            self._log("the registration was swept away and is written again")
