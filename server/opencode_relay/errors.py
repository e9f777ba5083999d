"""What a person at the relay can mend. Each message is one line that names the thing and the next step.

RelayError
├── ConfigError        relay.json or clients.json is missing, unreadable or contradicts what is enrolled
├── EnrolmentError     a client cannot be enrolled, revoked or joined as asked
└── BackupError        a backup cannot be made, read or put back

What a launcher is told over the line is `protocol.Refusal`.
"""

from __future__ import annotations


class RelayError(Exception):
    """Base of all errors that a person can mend."""


class RelayConfigError(RelayError):
    """The relay's own files are not as they must be."""


class EnrolmentError(RelayError):
    """What was asked for is refused; nothing was changed."""


class BackupError(RelayError):
    """A backup cannot be made, read or put back."""
