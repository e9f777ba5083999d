"""Tells a child who makes a call: `{"login": …, "may": [capabilities]}` in the call's `_meta`, under a key of ours.

The OpenCode server hears besides where the pages are (`page`), if this caller may decide there alone
(`"decides": "page"`), and if `always` takes a passkey, which nobody has in a chat (`"always": false`). A decision
that was made on a page has the digest of what the person had before them (`shown`).

A client could write it, too, so what it wrote is replaced. A child believes it only if its parent said at its start
that it says so: see `servers.Server.environment`. No other server hears who calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from opencode_gateway.calls.audited import TokenHolder
from opencode_gateway.calls.errors import Denied
from opencode_gateway.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastmcp.tools.base import ToolResult
    from mcp_types import CallToolRequestParams

KEY: Final = "opencode-relay/caller"


class TellCallers(Middleware):
    """Puts the caller into each call on its way to a child that is told.

    Args:
        is_told: whether the server of a tool is.
        decides: whether a tool decides what an agent asks.
        page_of: where the server of a tool has pages to decide on; None: nowhere.
        on_page_alone: nobody decides in a chat, nor with a machine's token.
        always: whether `always` may be said there.
    """

    def __init__(
        self,
        is_told: Callable[[str], bool],
        decides: Callable[[str], bool],
        page_of: Callable[[str], str | None],
        *,
        on_page_alone: bool,
        always: bool,
    ) -> None:
        self._is_told = is_told
        self._decides = decides
        self._page_of = page_of
        self._on_page_alone = on_page_alone
        self._always = always

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Say who calls, in place of what the client said.

        Raises:
            Denied: there is no request to say it in, or this is decided on pages, and there are none.
        """
        request = context.fastmcp_context.request_context if context.fastmcp_context else None
        if request is None:
            raise Denied("this call came outside of a request, so nothing was done")
        name = context.message.name
        page = self._page_of(name)
        if page is None and self._decides(name) and (self._on_page_alone or not self._always):
            raise Denied("on this relay that is decided on its pages, and this server has none; nothing was done")
        told = self._told(page) if self._is_told(name) else {}
        request.meta = {key: value for key, value in (request.meta or {}).items() if key != KEY} | told
        return await call_next(context)

    def _told(self, page: str | None) -> dict[str, object]:
        token, caller = get_access_token(), TokenHolder.of_request()
        # A token of a machine may have the name of a person.
        login = f"token:{caller.login}" if caller.kind == "token" else caller.login
        ways: dict[str, object] = {}
        if page is not None:
            ways = {"page": page}
            ways |= {"decides": "page"} if self._on_page_alone else {}
            ways |= {} if self._always else {"always": False}
        return told_of(login, token.scopes if token else (), **ways)


def told_of(login: str | None, may: Collection[str], **more: object) -> dict[str, object]:
    """Return what a child is told of a caller, for `_meta`."""
    held = [capability for capability in CAPABILITIES if capability in may]
    return {KEY: {"login": login, "may": held, **more}}
