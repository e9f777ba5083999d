"""OpenCode 2: a person's one background service, which works in all of their directories."""

from opencode_fleet.agents.opencode2.agent import OpenCode2

__all__ = ["OpenCode2"]
