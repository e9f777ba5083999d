"""Ages in few words."""

from __future__ import annotations

_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400


def age_text(seconds: float) -> str:
    """Return how long ago something was, like `5 min ago`; what is to come is now, as clocks differ."""
    if seconds < _MINUTE:
        return "now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h ago"
    return f"{seconds // _DAY:.0f} days ago"
