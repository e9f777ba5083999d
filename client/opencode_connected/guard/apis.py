"""Which table counts for which generation of OpenCode. Another generation is one more file and one more entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_connected.guard import opencode1, opencode2
from opencode_connected.guard.refusals import AgentUnavailable

if TYPE_CHECKING:
    from opencode_connected.guard.routes import Api

_APIS = {api.generation: api for api in (opencode1.API, opencode2.API)}


def api_of(generation: int) -> Api:
    """Return what is let through to OpenCode `generation`."""
    try:
        return _APIS[generation]
    except KeyError:
        raise AgentUnavailable(
            f"OpenCode {generation} is newer than the guard: update opencode-relay on that laptop", status=503
        ) from None
