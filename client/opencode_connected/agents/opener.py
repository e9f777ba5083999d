"""Opening directories from afar: only below what the service's configuration names, and closing them again.

A directory is opened by being written down (`openings`): the service of OpenCode 2 works in any that it is asked for,
and the guard lets it be asked for those that are written down or that a launcher opened.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_connected import names
from opencode_connected.guard.policy import real_path
from opencode_connected.guard.refusals import RequestRefused
from opencode_connected.openings import Opening, Openings
from opencode_connected.state import StateDirectory, now
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from opencode_connected.state import InstanceState

MAX_OPENED = 32
"""Directories that are open from afar at once, of one line."""
_MAX_LISTED = 10
_KIND = "open"
"""Of refusals, for the log."""


def may_be_opened(real: str, below: Iterable[str]) -> bool:
    """Tell whether `real` is one of `below` or below one: a directory of this user's, with no link on its way."""
    return _is_below(real, below) and _is_own_directory(real) and real_path(real) == real


class DirectoryOpener:
    """What the guard opens and closes directories by (`guard.opening.Opener`), for the line `key`.

    Args:
        state_dir: where it is written down.
        key: of the line.
        home: what `~` stands for.
        launchers: returns those of the line that live; it takes milliseconds.
        name_of: returns what the instance of a directory would be called.
        changed: is awaited when what is open has changed.
        allows: tells whether a directory can be seen from afar now.
        log: takes one line.

    """

    def __init__(
        self,
        state_dir: Path,
        key: str,
        *,
        home: str,
        launchers: Callable[[], list[InstanceState]],
        name_of: Callable[[str], str],
        changed: Callable[[], Awaitable[None]],
        allows: Callable[[str], bool],
        log: Callable[[str], None],
    ) -> None:
        self._states = StateDirectory(state_dir)
        self._openings = Openings(state_dir, key)
        self._home = home
        self._launchers = launchers
        self._name_of = name_of
        self._changed = changed
        self._allows = allows
        self._log = log

    async def open(self, directory: str) -> dict[str, object]:
        """See `guard.opening.Opener.open`."""
        opened = await asyncio.to_thread(self._open, directory)
        await self._changed()
        return opened

    async def close(self, directory: str) -> dict[str, object]:
        """See `guard.opening.Opener.close`."""
        closed = await asyncio.to_thread(self._close, directory)
        await self._changed()
        return {"directory": closed, "still": await asyncio.to_thread(self._allows, closed)}

    def _open(self, given: str) -> dict[str, object]:
        below = _open_below(self._launchers())
        real = self._real(given)
        # First of all: what lies elsewhere must not tell by another answer whether it is there.
        if real is None or not _is_below(real, below):
            raise RequestRefused(_KIND, f"{_quoted(given)} may not be opened from afar: {_listed(below)}")
        if not real.isprintable():
            raise RequestRefused(
                _KIND, "the name of that directory has characters that cannot be shown: rename it there"
            )
        if not _is_own_directory(real):
            raise RequestRefused(
                _KIND,
                f"{_quoted(given)} is no directory of that laptop's user, or is not there: see how it is written, or "
                "have it made there",
            )
        with self._states.locked():
            launchers, openings = self._launchers(), self._openings.read()
            known = [(state.directory, state.name) for state in launchers if state.name]
            known += [(each.directory, each.name) for each in openings]
            if (name := dict(reversed(known)).get(real)) is not None:
                return {"directory": real, "name": name, "opened": False}
            openings = self._with_room(openings, below)
            taken = {name for _, name in known}
            name = next((name for name in names.candidates(self._name_of(real)) if name not in taken), None)
            if name is None:
                raise RequestRefused(_KIND, "too many directories of that name are open there: close one")
            self._keep([*openings, Opening(directory=real, name=name, opened_at=now())])
        self._log(f"opened from afar: {printable(real)}, as {name!r}")
        return {"directory": real, "name": name, "opened": True}

    def _close(self, given: str) -> str:
        with self._states.locked():
            openings = self._openings.read()
            # As it is called: whatever it has become since, it must be possible to close it.
            wanted = {given, given.rstrip("/"), self._real(given)}
            gone = [each for each in openings if each.directory in wanted]
            if not gone:
                raise RequestRefused(
                    _KIND,
                    "that directory was not opened from afar, so it is not closed from there: it goes when its "
                    "launcher on that laptop ends",
                )
            self._keep([each for each in openings if each not in gone])
        closed = gone[0].directory
        self._log(f"closed from afar: {printable(closed)}")
        return closed

    def _with_room(self, openings: list[Opening], below: list[str]) -> list[Opening]:
        """Return them with room for one more: where there is none, those that lead nowhere any more are left out."""
        if len(openings) < MAX_OPENED:
            return openings
        kept = [each for each in openings if may_be_opened(each.directory, below)]
        if len(kept) >= MAX_OPENED:
            raise RequestRefused(
                _KIND, f"{MAX_OPENED} directories are open from afar there, which is all that may be: close one first"
            )
        return kept

    def _keep(self, openings: list[Opening]) -> None:
        try:
            self._openings.write(openings)
        except OSError as error:
            raise RequestRefused(
                _KIND, f"that laptop cannot write it down ({error.strerror}), so nothing was changed: free its disk"
            ) from error

    def _real(self, given: str) -> str | None:
        is_home = given == "~" or given.startswith("~/")
        return real_path(f"{self._home.rstrip('/')}{given[1:]}" if is_home else given)


def _open_below(launchers: Iterable[InstanceState]) -> list[str]:
    """Return below what may be opened now.

    Raises:
        Refused: nothing may.

    """
    services = [state for state in launchers if state.headless]
    if not services:
        raise RequestRefused(
            _KIND, "no service runs on that laptop that could: run `opencode-connected service install` there"
        )
    below = list(dict.fromkeys(root for state in services for root in state.open_below))
    if not below:
        raise RequestRefused(
            _KIND,
            "the owner of that laptop lets nothing be opened from afar: if you are the owner, say where in its "
            'config.toml, such as open_below = ["~/work"], and start its service anew',
        )
    return below


def _is_below(real: str, below: Iterable[str]) -> bool:
    return any(real == root or real.startswith(f"{root.rstrip('/')}/") for root in below)


def _is_own_directory(real: str) -> bool:
    with suppress(OSError, ValueError):
        found = os.lstat(real)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _listed(below: list[str]) -> str:
    more = len(below) - _MAX_LISTED
    shown = ", ".join(printable(root, limit=120) for root in below[:_MAX_LISTED])
    return f"choose a directory in or below {shown}" + (f" and {more} more" if more > 0 else "")


def _quoted(given: str) -> str:
    shown = printable(given, limit=120)
    return f"`{shown}`" if shown else "a directory without a name"
