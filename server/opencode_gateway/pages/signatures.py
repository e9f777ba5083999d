"""Passkeys that sign what people decide on pages. See `opencode_pages.parts.Signatures`."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opencode_gateway.audit import PAGES, AuditEvent
from opencode_gateway.errors import CommandRefused, ConfigError, StoreError
from opencode_gateway.sign_in.passkeys import Ask, PasskeyRefused
from opencode_pages.parts import NotSigned, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from opencode_gateway.sign_in.passkeys import Passkeys
    from opencode_pages.parts import PageDecision, Visitor

_UNSIGNED: Final = (
    "This decision needs your passkey, which this browser did not ask for: "
    "let this page run its script, and try again."
)

log = logging.getLogger(__name__)


class DecisionSignatures:
    """See `Signatures`.

    Args:
        passkeys: of all people.
        wanted_for: decisions that need one, as `passkey_for` of the configuration.
        on_event: hears of what was refused; what was taken stands with its decision.
    """

    def __init__(
        self, passkeys: Passkeys, wanted_for: Collection[str], on_event: Callable[[AuditEvent], None]
    ) -> None:
        self._passkeys = passkeys
        self._wanted_for = wanted_for
        self._on_event = on_event

    def wanted(self, word: str) -> bool:
        """See `Signatures`."""
        return word in self._wanted_for

    def missing(self, visitor: Visitor) -> str:
        """See `Signatures`."""
        with _looked_up():
            return self._passkeys.missing(visitor.login)

    def options(self, visitor: Visitor, decision: PageDecision) -> str:
        """See `Signatures`."""
        with _looked_up():
            return self._passkeys.deciding(visitor.login, visitor.session, _ask(decision))

    async def proof(self, visitor: Visitor, decision: PageDecision, answer: str) -> str:
        """See `Signatures`."""
        try:
            with _looked_up():
                if not answer:
                    raise PasskeyRefused(self._passkeys.missing(visitor.login) or _UNSIGNED, "no passkey signed it")
                return await self._passkeys.decided(visitor.login, visitor.session, _ask(decision), answer)
        except PasskeyRefused as error:
            self._report(visitor, decision, error.why)
            raise NotSigned(f"{error} Nothing was decided.") from error

    def _report(self, visitor: Visitor, decision: PageDecision, why: str) -> None:
        details: dict[str, object] = {
            "ask": decision.handle,
            "digest": decision.digest,
            "decision": decision.word,
            "page_session": visitor.session,
            "why": why,
        }
        self._on_event(
            AuditEvent(event="decision", outcome="refused", login=visitor.login, client_name=PAGES, details=details)
        )


@contextmanager
def _looked_up() -> Iterator[None]:
    """Make what the gateway raises what pages know."""
    try:
        yield
    except CommandRefused as error:
        raise NotSigned(str(error)) from error
    except (ConfigError, StoreError) as error:
        log.error("passkeys cannot be looked up: %s", error)  # noqa: TRY400 # its message says all
        raise Unavailable("Passkeys cannot be looked up just now. Nothing was decided: try again.") from error


def _ask(decision: PageDecision) -> Ask:
    return Ask(decision.handle, decision.digest, decision.answer)
