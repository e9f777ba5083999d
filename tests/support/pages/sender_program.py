"""One copy of the sender, as a process: `sender_program.py STATE_DIR NOTIFY_JSON FILE`; FILE is the fake outlets'."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from opencode_notify.service import telling
from support.pages.fake_outlet import FakeOutlet


async def main(state_dir: Path, people: Path, file: Path) -> None:
    """Tell until it is killed."""
    async with telling(state_dir, people, lambda settings: FakeOutlet(file, settings["address"])):
        print("runs", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
