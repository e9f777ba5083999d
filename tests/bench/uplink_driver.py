"""Run on the relay: `python -m bench.uplink_driver URL GENERATION DIRECTORY LINES SECONDS`.

Has the OpenCode behind a tunnel run a command that prints so many lines, fifty a second, and follows it as the server
does: with one stream of events. Prints `{"events_kb":…,"seconds":…}`; `seconds` until the end was told of, null
where it was not within so many seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import httpx

_ENDS = ("session.idle", "session.execution.succeeded")


async def drive(url: str, generation: int, directory: str, lines: int, seconds: float) -> dict[str, float | None]:
    """Do it."""
    second = generation == 2
    root, events = ("/api/session", "/api/event") if second else ("/session", "/event")
    size = 0
    async with httpx.AsyncClient(base_url=url, timeout=seconds, trust_env=False) as client:
        body = {"location": {"directory": directory}} if second else {}
        made = (await client.post(root, json=body)).raise_for_status().json()
        session = f"{root}/{(made['data'] if second else made)['id']}"
        noise = (
            f'for i in $(seq {lines}); do echo "test $i of a suite that says a line for each: ok"; sleep 0.02; done'
        )
        text = f"[BASH:{noise}]"
        sent = {"text": text} if second else {"parts": [{"type": "text", "text": text}]}
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds), client.stream("GET", events) as stream:
                is_sent = False
                async for line in stream.aiter_lines():
                    if not is_sent:
                        is_sent = True
                        path = f"{session}/{'prompt' if second else 'prompt_async'}"
                        (await client.post(path, json=sent)).raise_for_status()
                    size += len(line.encode()) + 1
                    if line.startswith("data:") and json.loads(line[5:])["type"] in _ENDS:
                        return {"events_kb": size / 1000, "seconds": time.monotonic() - began}
        except (TimeoutError, httpx.HTTPError):
            pass
    return {"events_kb": size / 1000, "seconds": None}


if __name__ == "__main__":
    _, where, kind, at, amount, most = sys.argv
    print(json.dumps(asyncio.run(drive(where, int(kind), at, int(amount), float(most)))))
