"""Waiting for the thing itself, never for a time: bounded polls for sync and async tests."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_INTERVAL = 0.02
"""Seconds between two looks: short beside what is waited for, long beside the cost of a look."""
PATIENCE = 120.0
"""Seconds until what is waited for counts as hanging: far beyond what a busy machine takes."""


def eventually(predicate: Callable[[], T], what: str = "", *, within: float = PATIENCE) -> T:
    """Return the first truthy value of `predicate`, or fail after `within` seconds.

    An `AssertionError` of the predicate counts as "not yet", so that plain asserts can be waited for
    (such a predicate must return something truthy at its end). `what` names the thing in the failure.
    """
    deadline = time.monotonic() + within
    while True:
        reason: object
        try:
            value = predicate()
        except AssertionError as error:
            reason = error
        else:
            if value:
                return value
            reason = value
        if time.monotonic() >= deadline:
            raise AssertionError(_gave_up(what, within, reason))
        time.sleep(_INTERVAL)


async def eventually_async(predicate: Callable[[], object], what: str = "", *, within: float = PATIENCE) -> Any:
    """Like `eventually`, for a plain or an async predicate, leaving the event loop free meanwhile.

    The result is `Any` since mypy cannot tell the two kinds of predicate apart in a lambda.
    """
    deadline = time.monotonic() + within
    while True:
        reason: object
        try:
            outcome = predicate()
            value = await outcome if inspect.isawaitable(outcome) else outcome
        except AssertionError as error:
            reason = error
        else:
            if value:
                return value
            reason = value
        if time.monotonic() >= deadline:
            raise AssertionError(_gave_up(what, within, reason))
        await asyncio.sleep(_INTERVAL)


def _gave_up(what: str, within: float, reason: object) -> str:
    return f"{what or 'the condition'} did not come true within {within:g} s; last: {reason!r}"
