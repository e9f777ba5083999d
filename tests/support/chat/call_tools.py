"""A program: calls tools of the server that this Python has installed, and prints an answer a line.

python -m support.chat.call_tools REGISTRY_DIR < [["instances",{}],["send",{"instance":"laptop","message":"…"}]]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from support.chat.mcp_client import relay_client


async def call_tools(registry_dir: Path, calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Make the calls one after another."""
    async with relay_client(registry_dir, env=os.environ) as client:
        for tool, arguments in calls:
            answer = await client.call(tool, **arguments)
            print(
                json.dumps({"text": answer.text, "structured": answer.structured, "is_error": answer.is_error}),
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(call_tools(Path(sys.argv[1]), json.loads(sys.argv[2])))
