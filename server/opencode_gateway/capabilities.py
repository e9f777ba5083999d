"""What a login or a token may do. A capability is an OAuth scope and a name for tools that the settings list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Capability = Literal["observe", "approve", "drive"]
CAPABILITIES: Final[tuple[Capability, ...]] = get_args(Capability)
"""In the order in which people are shown them: from what changes nothing to what changes most."""
MEANING: Final[Mapping[Capability, str]] = {
    "observe": "see your OpenCode instances, their conversations and what they changed",
    "approve": "answer what agents ask: permissions and questions",
    "drive": "send agents tasks, start and stop them, and undo what they did",
}
"""What a person reads on the consent page."""
DEFAULT_TOOLS: Final[Mapping[Capability, tuple[str, ...]]] = {
    "observe": ("instances", "inbox", "read", "sessions", "changes", "wait"),
    "approve": ("reply",),
    "drive": ("send", "control"),
}
"""All tools of the OpenCode server, by what they need."""
PROMPTS: Final = frozenset({"stand-up", "review"})
"""All prompts of the OpenCode server. They say nothing of any machine, and need `observe`."""
_INSTANCES: Final = "opencode://instances"
_SHOWN_BY: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_INSTANCES}/": ("instances", "sessions"),
    "opencode://sessions/": ("read",),
}
"""By the beginning of their addresses the resources of the OpenCode server, with the tools that show the same."""
OPENCODE_TOOLS: Final[Mapping[str, Capability]] = {
    name: capability for capability, names in DEFAULT_TOOLS.items() for name in names
}


def tools_showing(uri: str) -> tuple[str, ...] | None:
    """Return the tools of the OpenCode server that show what its resource `uri` shows; None if it is none of its own.

    `uri` may be a template.
    """
    if uri == _INSTANCES:
        return ("instances",)
    return next((tools for beginning, tools in _SHOWN_BY.items() if uri.startswith(beginning)), None)


def permitted(tools: Mapping[Capability, Iterable[str]], granted: Iterable[str]) -> frozenset[str]:
    """Return the names of the tools that `granted` capabilities allow; a tool that no capability lists is in none."""
    held = frozenset(granted)
    return frozenset(name for capability, names in tools.items() if capability in held for name in names)
