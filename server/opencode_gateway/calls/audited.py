"""Writes an audit line for every tool call; see `opencode_gateway.audit`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_access_token, get_http_request
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp_types import CallToolRequestParams, TextContent

from opencode_gateway.audit import Event
from opencode_gateway.calls.errors import CallError, Denied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastmcp.server.auth import AccessToken
    from fastmcp.tools.base import ToolResult

    from opencode_gateway.audit import AuditLog


@dataclass(frozen=True)
class Caller:
    """Who calls, as the token says, and from where."""

    login: str | None
    kind: str | None
    client_id: str | None
    client_name: str | None
    address: str | None

    @classmethod
    def of_request(cls) -> Caller:
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
    """Writes a line for every tool call, whatever becomes of it."""

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
        began = time.monotonic()
        outcome, result = "failed", None
        try:
            if call.name not in self._observing and not self._log.usable():
                raise Denied("the gateway cannot write its audit log, so nothing was done; its owner must see to it")
            result = await call_next(context)
            outcome = "tool-error" if result.is_error else "ok"
        except CallError as error:
            outcome = error.outcome
            raise
        except ToolError:
            # The server's own word, said as an error of the protocol.
            outcome = "tool-error"
            raise
        except anyio.get_cancelled_exc_class():
            outcome = "cancelled"
            raise
        finally:
            self._write(call, outcome, result, round((time.monotonic() - began) * 1000))
        return result

    def _write(self, call: CallToolRequestParams, outcome: str, result: ToolResult | None, duration: int) -> None:
        caller = Caller.of_request()
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
            "duration_ms": duration,
        }
        if self._log.messages:
            details["arguments"] = json.dumps(arguments)
            texts = [block.text for block in (result.content if result else []) if isinstance(block, TextContent)]
            details["result"] = "\n".join(texts)
        self._log.write(
            Event(
                event="call",
                outcome=outcome,
                login=caller.login,
                kind=caller.kind,
                client_id=caller.client_id,
                client_name=caller.client_name,
                address=caller.address,
                details=details,
            )
        )
