"""Several calls to one agent at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

Item = TypeVar("Item")
Found = TypeVar("Found")
AT_ONCE = 4
"""Calls at the same time: each opens a connection, which costs two round trips through a tunnel."""


async def in_parallel(items: Iterable[Item], call: Callable[[Item], Awaitable[Found]]) -> list[Found]:
    """Call for each item, `AT_ONCE` at a time, and return what they return, in order; the first error is raised."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Item) -> Found:
        async with places:
            return await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
