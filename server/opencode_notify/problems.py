"""What a person can mend."""

from __future__ import annotations


class NotifyError(Exception):
    """One line that names the thing and the next step, without any secret."""
