"""What stands for exactly one ask, as it is: the same in every process, and another after any change."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opencode_fleet.inbox import Waiting
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask

_CHARACTERS: Final = 32


def digest(*things: Any) -> str:
    """Return 32 hexadecimal digits that stand for these things, which JSON can hold."""
    # ASCII alone, as a lone surrogate from another machine has no other encoding.
    canonical = json.dumps(things, sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()[:_CHARACTERS]


def digest_of(instance: Instance, ask: Ask) -> str:
    """Return what stands for exactly this ask at this instance."""
    return digest(type(ask).__name__, instance.name, instance.state.directory, asdict(ask))


def digest_of_waiting(waiting: Waiting) -> str:
    """Return the same of an ask that waits; empty while its machine does not say what it is."""
    return digest_of(waiting.place, waiting.ask) if waiting.place and waiting.ask else ""
