"""How far messages came, and how outlets do. All times are epoch seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message on its way by one outlet, and up to where it came."""

    message: str
    person: str
    outlet: str
    state: str
    attempts: int
    """Including the present one."""
    reason: str = ""
    accepted_at: float | None = None
    shown_at: float | None = None
    opened_at: float | None = None
    decided_at: float | None = None
    """When all that it told of was settled, if it was accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletState:
    """How an outlet of a person does."""

    person: str
    outlet: str
    disabled_at: float | None
    failed_at: float | None
    failing_since: float | None
    """When it first failed after it last accepted something; None: it works."""
    accepted_at: float | None
    reason: str
    """Of the last failure, if nothing was accepted since; else empty."""
