"""A stand-in for an outlet: writes what it is given into a file, a line each, and answers as it is told to."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from opencode_notify.notice import ACCEPTED

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_notify.notice import Notice, Receipt


class FakeOutlet:
    """All of one file; `answers`: what is said next, then `ACCEPTED`."""

    def __init__(self, path: Path, name: str, answers: list[Receipt] | None = None) -> None:
        self._path = path
        self._name = name
        self._answers = answers if answers is not None else []
        self.refuses_withdrawal = False

    async def send(self, notice: Notice) -> Receipt:
        """Take a notice."""
        self._write("sent", notice)
        await asyncio.sleep(0)
        return self._answers.pop(0) if self._answers else ACCEPTED

    async def withdraw(self, notice: Notice) -> None:
        """Take it back."""
        self._write("withdrawn", notice)
        await asyncio.sleep(0)

    def _write(self, what: str, notice: Notice) -> None:
        told = {"what": what, "outlet": self._name, **asdict(notice)}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(told).encode() + b"\n")  # whole, or not at all
        finally:
            os.close(descriptor)


def told(path: Path) -> list[dict[str, Any]]:
    """Return what was written into such a file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
