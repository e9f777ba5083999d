"""OpenCode 1: its server, which works in one directory of its own."""

from opencode_fleet.agents.opencode1.agent import OpenCode1

__all__ = ["OpenCode1"]
