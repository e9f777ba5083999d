"""A person's message as OpenCode 1 takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opencode_fleet.model import Prompt

_TICKS = 12
"""Hexadecimal digits of an id that sort it."""


def prompt_parts(prompt: Prompt) -> list[dict[str, Any]]:
    """Return the parts of a message, text first. Each has an id: without it a second post would append it again."""
    ticks, unique = prompt.id.removeprefix("msg_")[:_TICKS], prompt.id.removeprefix("msg_")[_TICKS:]
    texts = [{"type": "text", "text": prompt.text}]
    files = [
        {"type": "file", "mime": file.media_type, "filename": file.name, "url": file.uri} for file in prompt.files
    ]
    return [
        {"id": f"prt_{(int(ticks, 16) + number) % (1 << 48):012x}{unique}", **part}
        for number, part in enumerate([*texts, *files])
    ]
