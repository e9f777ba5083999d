"""The known transports, by the name that `TRANSPORT` takes. A new one is a file here and a line in `TRANSPORTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.transports.local_relay import LocalRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_fleet.settings import ServerSettings
    from opencode_fleet.transports.base import Transport

TRANSPORTS: Mapping[str, Callable[[ServerSettings], Transport]] = {
    "local-relay": LocalRelay.from_settings,
}
