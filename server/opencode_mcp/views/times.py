"""Times and ages in few words: all times are UTC, as machines and people are in different zones."""

from __future__ import annotations

import time

_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400
_LAST = 253_402_300_799.0
"""The end of the year 9999: later times, which an odd record may have, cannot be written."""


def moment_text(at: float) -> str:
    """Return a time (epoch seconds) like `2026-11-30 14:02 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(at, 0.0), _LAST)))


def age_text(seconds: float) -> str:
    """Return how long ago something was, like `5 min ago`; what is to come is now, as clocks differ."""
    if seconds < _MINUTE:
        return "now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h ago"
    return f"{seconds // _DAY:.0f} days ago"
