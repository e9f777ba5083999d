"""A real OpenCode as a machine of a run: what reached it is looked up in its own records, and in what it executed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.line.fake_faulty_line import FaultyLine
    from support.opencodes.driven import Driven

_RAN = "ran.txt"


class RealMachine:
    """An OpenCode behind a line, with sessions of its own for the run."""

    def __init__(self, driven: Driven, line: FaultyLine, sessions: int) -> None:
        self.sessions = [driven.create() for _ in range(sessions)]
        self._driven = driven
        self._line = line

    def prompt(self, name: str, *, asks: bool) -> str:
        """Return a prompt; where it `asks`, its turn wants to run a command that leaves a trace."""
        return f"{name} [BASH:echo {name} >> {_RAN}]" if asks else name

    def times_delivered(self, text: str) -> int:
        """See `Machine`."""
        return sum(self._driven.prompts(session).count(text) for session in self.sessions)

    def applied(self) -> list[tuple[str, str, str]]:
        """See `Machine`: OpenCode keeps no record of decisions; `executed` shows what they led to."""
        return []

    def unsettled(self) -> list[str]:
        """See `Machine`."""
        return self._driven.asks()

    def executed(self) -> list[str]:
        """Return the names of the prompts whose commands ran."""
        ran = self._driven.directory / _RAN
        return ran.read_text().split() if ran.exists() else []

    async def restart(self) -> None:
        """See `Target`: it is killed, as by a crash."""
        await asyncio.to_thread(self._driven.kill)
        await asyncio.to_thread(self._driven.revive)
        self._line.target_port = self._driven.port
