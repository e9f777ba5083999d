"""How a request learns that the service ends before its answer has come.

Whoever receives requests (`door.draining`) puts an `Ending` into the ASGI scope of each; whoever waits in one
(`bounds`) lends it the scope of the waiting. So neither knows the other.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import anyio

_KEY: Final = "opencode_gateway.ending"


class Ending:
    """The moment from which nobody can be waited for any longer. Of one event loop."""

    def __init__(self) -> None:
        self.is_near = self.has_come = False
        self._waiting: set[anyio.CancelScope] = set()
        self._streams: set[anyio.CancelScope] = set()

    @contextmanager
    def cuts_stream(self, stream: anyio.CancelScope) -> Iterator[None]:
        """Cancel what ends by itself never, and has nothing left to say, as soon as the end is near."""
        if self.is_near:
            stream.cancel()
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.remove(stream)

    def come_near(self) -> None:
        """Let streams end; whoever waits for an answer has time left."""
        self.is_near = True
        for stream in tuple(self._streams):
            stream.cancel()

    @contextmanager
    def cuts(self, waiting: anyio.CancelScope) -> Iterator[None]:
        """Cancel `waiting` when the moment comes, or at once if it has come."""
        if self.has_come:
            waiting.cancel()
        self._waiting.add(waiting)
        try:
            yield
        finally:
            self._waiting.remove(waiting)

    def come(self) -> None:
        """Let it come: whoever waits has to say now what is known."""
        self.has_come = True
        for waiting in tuple(self._waiting):
            waiting.cancel()

    def put_into(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Return an ASGI scope whose request ends with this."""
        return {**scope, _KEY: self}


def ending_of(scope: Mapping[str, Any]) -> Ending:
    """Return when the request of this ASGI scope must end; never, where nobody has said so."""
    found = scope.get(_KEY)
    return found if isinstance(found, Ending) else Ending()
