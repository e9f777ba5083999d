"""How long ago something was, to be read aloud: a phone's time zone is nobody's here."""

from __future__ import annotations

_UNITS = ((86_400, "day"), (3_600, "h"), (60, "min"))


def ago(at: float, now: float) -> str:
    """Return how long before `now` it was `at`, both in epoch seconds, as `3 min ago`."""
    passed = now - at
    return "just now" if passed < 60 else f"{lasted(passed)} ago"


def lasted(seconds: float) -> str:
    """Return a length of time in its largest unit, as `3 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{max(0, int(seconds))} s"
