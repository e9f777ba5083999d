"""What is told while a tool's call runs, noted in place of an MCP client's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context

    from opencode_fleet.fleet import Fleet


class Notes(list[str]):
    """What is told while a message is answered; it stands in for the tools' context too."""

    async def take(self, text: str) -> None:
        self.append(text)

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        del progress, total
        self.append(message or "")

    def context(self) -> Context[Fleet, Any]:
        return cast("Context[Fleet, Any]", self)
