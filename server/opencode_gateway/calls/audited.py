"""Writes an audit line for every tool call, and for what is read besides; see `opencode_gateway.audit`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio
from fastmcp.exceptions import NotFoundError, ToolError
from fastmcp.server.dependencies import get_access_token, get_http_request
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, TextContent

from opencode_gateway.audit import AuditEvent
from opencode_gateway.calls.errors import CallError, Denied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fastmcp.prompts.base import PromptResult
    from fastmcp.resources.base import Resource, ResourceResult
    from fastmcp.server.auth import AccessToken
    from fastmcp.tools.base import ToolResult
    from mcp_types import GetPromptRequestParams, ListResourcesRequest, ReadResourceRequestParams

    from opencode_gateway.audit import AuditLog

_T = TypeVar("_T")


@dataclass(frozen=True)
class TokenHolder:
    """Who calls, as the token says, and from where."""

    login: str | None
    kind: str | None
    client_id: str | None
    client_name: str | None
    address: str | None

    @classmethod
    def of_request(cls) -> TokenHolder:
        """Return the caller of the request that is being served."""
        token: AccessToken | None = get_access_token()
        claims: Mapping[str, object] = token.claims if token else {}
        client = get_http_request().client
        return cls(
            login=_text(claims.get("login")) or (token.subject if token else None),
            kind=_text(claims.get("kind")),
            client_id=token.client_id if token else None,
            client_name=_text(claims.get("client_name")),
            address=client.host if client else None,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class AuditCalls(Middleware):
    """Writes a line for every tool call, whatever becomes of it; likewise for resources and prompts."""

    def __init__(self, log: AuditLog, observing: frozenset[str], server_of: Callable[[str], str]) -> None:
        """`observing`: tools that only observe; `server_of`: the server that a tool is of."""
        self._log = log
        self._observing = observing
        self._server_of = server_of

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Let the call happen, and write down what came of it."""
        call = context.message

        async def called() -> ToolResult:
            if call.name not in self._observing and not self._log.usable():
                raise Denied("the gateway cannot write its audit log, so nothing was done; its owner must see to it")
            return await call_next(context)

        return await self._audited("call", called(), lambda result: self._of_call(call, result))

    async def on_read_resource(
        self,
        context: MiddlewareContext[ReadResourceRequestParams],
        call_next: CallNext[ReadResourceRequestParams, ResourceResult],
    ) -> ResourceResult:
        """Let it be read, and write that down."""
        details: dict[str, object] = {"resource": str(context.message.uri)}
        return await self._audited("resource", call_next(context), lambda _result: details)

    async def on_get_prompt(
        self,
        context: MiddlewareContext[GetPromptRequestParams],
        call_next: CallNext[GetPromptRequestParams, PromptResult],
    ) -> PromptResult:
        """Let it be had, and write that down."""
        details: dict[str, object] = {"prompt": context.message.name}
        return await self._audited("prompt", call_next(context), lambda _result: details)

    async def on_list_resources(
        self,
        context: MiddlewareContext[ListResourcesRequest],
        call_next: CallNext[ListResourcesRequest, Sequence[Resource]],
    ) -> Sequence[Resource]:
        """Let it be listed what there is, which tells of instances, and write that down; of nothing, no line."""
        return await self._audited("resources", call_next(context), lambda found: {} if found else None)

    async def _audited(
        self, event: str, answer: Awaitable[_T], details_of: Callable[[_T | None], dict[str, object] | None]
    ) -> _T:
        """Write a line about an answer, or about why there is none; without details, there is no line."""
        began = time.monotonic()
        outcome, result = "failed", None
        try:
            result = await answer
            outcome = "tool-error" if getattr(result, "is_error", False) else "ok"
        except CallError as error:
            outcome = error.outcome
            raise
        except (NotFoundError, ToolError):
            # The server's own word, said as an error of the protocol; or there is no such thing.
            outcome = "tool-error" if event == "call" else "not-found"
            raise
        except MCPError as error:
            outcome = "not-found" if event != "call" and error.code == INVALID_PARAMS else "failed"
            raise
        except anyio.get_cancelled_exc_class():
            outcome = "cancelled"
            raise
        finally:
            details = details_of(result)
            if details is not None:
                duration = round((time.monotonic() - began) * 1000)
                self._write(event, outcome, {**details, "duration_ms": duration})
        return result

    def _of_call(self, call: CallToolRequestParams, result: ToolResult | None) -> dict[str, object]:
        arguments = call.arguments or {}
        # Typed as an object by fastmcp; a server of the 2026 era may answer anything that is JSON.
        found: object = result.structured_content if result else None
        structured = found if isinstance(found, dict) else {}
        details: dict[str, object] = {
            "tool": call.name,
            "server": self._server_of(call.name),
            "asked": _text(arguments.get("instance")),
            "instance": _text(structured.get("instance")),
            "session": _text(structured.get("session")) or _text(arguments.get("session")),
        }
        if self._log.messages:
            details["arguments"] = json.dumps(arguments)
            texts = [block.text for block in (result.content if result else []) if isinstance(block, TextContent)]
            details["result"] = "\n".join(texts)
        return details

    def _write(self, event: str, outcome: str, details: dict[str, object]) -> None:
        caller = TokenHolder.of_request()
        self._log.write(
            AuditEvent(
                event=event,
                outcome=outcome,
                login=caller.login,
                kind=caller.kind,
                client_id=caller.client_id,
                client_name=caller.client_name,
                address=caller.address,
                details=details,
            )
        )
