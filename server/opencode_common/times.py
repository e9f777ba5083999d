"""Moments in few words: all times are UTC, as machines and people are in different zones."""

from __future__ import annotations

import time

_LAST = 253_402_300_799.0
"""The end of the year 9999: later times, which an odd record may have, cannot be written."""


def moment_text(at: float) -> str:
    """Return a time (epoch seconds) like `2026-11-30 14:02 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(at, 0.0), _LAST)))
