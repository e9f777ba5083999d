"""Work whose end was not heard yet: the same call again hears it, and nothing is begun twice."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

REMEMBERED_FOR: Final = 600.0
"""Seconds after which the same call is meant anew."""
MAX_REMEMBERED: Final = 100

Result = TypeVar("Result")


class GoingOn(Generic[Result]):
    """Tasks by what names them. Each has several names: what was said, and what it meant."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[asyncio.Task[Result], tuple[float, tuple[Hashable, ...]]] = OrderedDict()

    def add(self, task: asyncio.Task[Result], *names: Hashable) -> None:
        """Keep a task that was just begun, until its end was heard."""
        self._tasks[task] = time.monotonic(), names
        while len(self._tasks) > MAX_REMEMBERED:
            self._tasks.popitem(last=False)

    def find(self, name: Hashable) -> asyncio.Task[Result] | None:
        """Return the newest task of that name whose end nobody heard yet."""
        now = time.monotonic()
        return next(
            (
                task
                for task, (at, names) in reversed(self._tasks.items())
                if name in names and (now - at < REMEMBERED_FOR or not task.done())
            ),
            None,
        )

    def heard(self, task: asyncio.Task[Result]) -> None:
        """Forget a task whose end was told."""
        self._tasks.pop(task, None)
