"""Ids of prompts. The same id is the same prompt, however often it is posted."""

from __future__ import annotations

import secrets
import string
import time

_BASE62 = string.digits + string.ascii_letters


def new_prompt_id() -> str:
    """Make an id as OpenCode does, of either generation: the time makes it sort, the rest unique."""
    ticks = (time.time_ns() // 1_000_000 * 4096 + secrets.randbelow(4096)) % (1 << 48)
    return f"msg_{ticks:012x}" + "".join(secrets.choice(_BASE62) for _ in range(14))
