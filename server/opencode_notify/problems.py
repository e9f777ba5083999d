"""What a person can mend.

NotifyError            the owner of the relay can
└── NotTaken           whoever asked for it can
"""

from __future__ import annotations


class NotifyError(Exception):
    """One line that names the thing and the next step, without any secret."""


class NotTaken(NotifyError):
    """It names nothing of the relay's own."""
