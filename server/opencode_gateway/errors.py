"""What a person at the relay can mend. Each message is one line that names the thing and the next step.

GatewayError
├── ConfigError   gateway.json, servers.json or a secrets file is missing, unreadable or wrong
├── StoreError    the database cannot be opened, read or written
│   └── StoreLocked  another program is writing to it
└── CommandRefused  what a command asked for is not possible; nothing was changed
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of all errors that a person can mend."""


class ConfigError(GatewayError):
    """The gateway's own files are not as they must be."""


class StoreError(GatewayError):
    """The database does not serve."""


class StoreLocked(StoreError):
    """Another program has the database's lock, and has not let go of it in time."""


class CommandRefused(GatewayError):
    """What was asked for is refused; nothing was changed."""
