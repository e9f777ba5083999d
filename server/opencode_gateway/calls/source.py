"""The OpenCode server as the pages see it, asked through its child. See `opencode_pages.parts.Source`.

A decision is refused while the audit log cannot be written, as calls are, and stands in it whatever comes of it.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import anyio
from fastmcp.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, CallToolResult, TextContent, TextResourceContents
from pydantic import BaseModel, ValidationError

from opencode_gateway.audit import PAGES, AuditEvent
from opencode_gateway.calls.bounds import BROKEN, never_began
from opencode_gateway.calls.callers import told_of
from opencode_pages.documents import ASK, ASK_OF, INBOX, AskDocument, InboxDocument
from opencode_pages.parts import NotDecided, NotThere, Unavailable
from opencode_pages.paths import HANDLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from contextlib import AbstractAsyncContextManager

    from opencode_gateway.audit import AuditLog
    from opencode_gateway.calls.changes import Changes
    from opencode_gateway.calls.children import ServerChild
    from opencode_pages.parts import PageDecision, Visitor

READ_SECONDS: Final = 10.0
DECIDE_SECONDS: Final = 30.0
"""The server answers once the agent took it; it follows no turn for a page."""
_REPLY: Final = "reply"
_NO_ANSWER: Final = "The server behind the gateway does not answer just now. Try again in a moment."
_UNKNOWN: Final = "Whether your decision was taken is not known. Look at what is shown now before you decide again."

_T = TypeVar("_T", bound=BaseModel)
_log = logging.getLogger(__name__)


class OpenCodeSource:
    """See `Source`.

    Args:
        child: the OpenCode server.
        log: of audit.
        changes: when what is shown may be another.
        public_url: as in the configuration.
        passkey_for: decisions that need a passkey's signature.
        failing: says to a login, in a line, by what they are not told though they should be; empty if all is well.
    """

    def __init__(
        self,
        child: ServerChild,
        log: AuditLog,
        changes: Changes,
        public_url: str,
        *,
        passkey_for: Collection[str] = (),
        failing: Callable[[str], str] = lambda _login: "",
    ) -> None:
        self._child = child
        self._log = log
        self._changes = changes
        self._public_url = public_url
        self._passkey_for = passkey_for
        self._failing = failing

    async def inbox(self, visitor: Visitor) -> InboxDocument:
        """See `Source`."""
        found = await self._read(visitor, INBOX, InboxDocument)
        problems = filter(None, (found.problem, self._failing(visitor.login)))
        return found.model_copy(update={"problem": "; ".join(problems)})

    async def ask(self, visitor: Visitor, handle: str) -> AskDocument:
        """See `Source`."""
        # Nothing else is part of an address that could be read otherwise than it is meant.
        if not HANDLE.fullmatch(handle):
            raise NotThere
        # An ask that changed since has another handle by now.
        return await self._read(visitor, ASK.format(handle=handle), AskDocument)

    async def ask_of(self, visitor: Visitor, instance: str, ask_id: str) -> AskDocument:
        """See `Source`."""
        found = await self._read(visitor, ASK_OF.format(instance=_part(instance), id=_part(ask_id)), AskDocument)
        # An address that was read otherwise than it was meant leads to no other ask.
        if (found.instance, found.id) != (instance, ask_id):
            raise NotThere
        return found

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """See `Source`."""
        return self._changes.seen()

    async def decide(self, visitor: Visitor, decision: PageDecision) -> None:
        """See `Source`."""
        details: dict[str, object] = {
            "ask": decision.handle,
            "digest": decision.digest,
            "decision": decision.word,
            "proof": decision.proof or None,
            "page_session": visitor.session,
        }
        if self._log.messages:
            details["answer"] = json.dumps(decision.answer)
        outcome = "cancelled"
        try:
            details["instance"] = (await self._decidable(visitor, decision)).instance
            await self._settle(visitor, decision, str(details["instance"]))
            outcome = "ok"
        except NotDecided:
            outcome = "refused"
            raise
        except Unavailable:
            outcome = "unknown"
            raise
        finally:
            self._log.write(
                AuditEvent(event="decision", outcome=outcome, login=visitor.login, client_name=PAGES, details=details)
            )

    async def _decidable(self, visitor: Visitor, decision: PageDecision) -> AskDocument:
        """Return the ask, if this person may decide it so.

        Raises:
            NotDecided: says why not.
        """
        if "approve" not in visitor.may:
            raise NotDecided("You may look at this, and not decide it: that takes the capability `approve`.")
        if decision.word in self._passkey_for and not decision.proof:
            raise NotDecided(f"On this relay `{decision.word}` takes a passkey. Nothing was decided.")
        if not self._log.usable():
            raise NotDecided(
                "The gateway cannot write its audit log, so nothing was decided; its owner must see to it."
            )
        try:
            found = await self.ask(visitor, decision.handle)
        except NotThere:
            raise NotDecided("This is not open any more. Nothing was decided.") from None
        except Unavailable as error:
            raise NotDecided(f"{error} Nothing was decided.") from None
        if found.digest != decision.digest:
            raise NotDecided("This is another one than the one that you had before you. Nothing was decided.")
        if found.kind == "permission" and decision.word == "answer":
            # The server would read a list with one `always` in it as that word, and no passkey was asked for.
            raise NotDecided("A permission takes `once`, `always` or `reject`. Nothing was decided.")
        if not found.whole and decision.word != "reject":
            raise NotDecided("This is too large to be shown whole, so it can only be rejected. Nothing was decided.")
        return found

    async def _settle(self, visitor: Visitor, decision: PageDecision, instance: str) -> None:
        arguments = {"instance": instance, "ask": decision.handle, "answer": decision.answer}
        meta = told_of(visitor.login, visitor.may, page=self._public_url, shown=decision.digest)
        began = False
        try:
            with anyio.fail_after(DECIDE_SECONDS):
                async with self._child.client() as client:
                    began = True
                    result = await client.call_tool_mcp(_REPLY, arguments, meta=meta)
        except (MCPError, ToolError, TimeoutError, *BROKEN) as error:
            if not began or never_began(error):
                _log.warning("a decision could not be passed on: %s", error)
                raise NotDecided(f"{_NO_ANSWER} Nothing was decided.") from error
            _log.warning("what became of a decision is not known: %s", error)
            raise Unavailable(_UNKNOWN) from error
        if not isinstance(result, CallToolResult) or result.is_error:
            raise NotDecided(_text(result) or "The server behind the gateway did not take it, and did not say why.")

    async def _read(self, visitor: Visitor, uri: str, kind: type[_T]) -> _T:
        """Return a document.

        Raises:
            NotThere, Unavailable: as `Source` has them.
        """
        if not visitor.may & {"observe", "approve"}:
            raise Unavailable("You may not look at this: that takes the capability `observe` or `approve`.")
        try:
            with anyio.fail_after(READ_SECONDS):
                async with self._child.client() as client:
                    result = await client.read_resource_mcp(uri, meta=told_of(visitor.login, visitor.may))
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                raise NotThere from error
            _log.warning("%s cannot be read: %s", uri[:100], error)
            raise Unavailable(_NO_ANSWER if error.code == CONNECTION_CLOSED else f"{error}") from error
        except (ToolError, TimeoutError, *BROKEN) as error:
            _log.warning("%s cannot be read: %s", uri[:100], error)
            raise Unavailable(_NO_ANSWER) from error
        try:
            [content] = result.contents
            return kind.model_validate_json(content.text if isinstance(content, TextResourceContents) else "")
        except ValueError as error:
            told = error.errors(include_input=False) if isinstance(error, ValidationError) else error
            _log.error("%s is no document: %s", uri[:100], told)  # its content is in no log
            raise Unavailable(
                "The server behind the gateway said something that the gateway does not know."
            ) from None


def _part(text: str) -> str:
    return quote(text, safe="")


def _text(result: object) -> str:
    content = result.content if isinstance(result, CallToolResult) else []
    return "\n".join(block.text for block in content if isinstance(block, TextContent))
