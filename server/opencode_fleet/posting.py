"""Post a prompt once, whatever becomes of the line meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from opencode_fleet.errors import NotFound, Unreachable, Unresponsive
from opencode_fleet.turn import RECORD_WITHIN

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Prompt

STORED_WITHIN = 2.0
"""Seconds in which an agent has stored what was posted before its server ended."""


async def post_once(instance: Instance, prompt: Prompt, deadline: float) -> None:
    """Post a prompt. One whose answer was lost is looked for before it is posted again.

    `deadline`: monotonic seconds.

    Raises:
        InstanceError: it was not taken, or that is not known (`is_doubtful`); the message says which.
    """
    session_id = prompt.session_id
    doubtful = False
    while True:
        try:
            async with asyncio.timeout(max(RECORD_WITHIN, deadline - time.monotonic())):
                if doubtful and await has_arrived(instance, prompt.session_id, prompt.id):
                    return
                await instance.agent.prompt(prompt)
        except TimeoutError:
            raise Unresponsive(
                f"{instance.quoted} did not say in time that it took the message: it may have arrived. "
                f"Use `read` on session {session_id} before sending it again"
            ) from None
        except NotFound:
            instance.state.forget(session_id)
            sent = "the message may have arrived before" if doubtful else "nothing was sent"
            gone = NotFound(f"session {session_id} is gone from {instance.quoted}; {sent}")
            gone.is_doubtful = doubtful
            raise gone from None
        except (Unreachable, Unresponsive) as error:
            if not (doubtful or error.is_doubtful):
                raise Unreachable(f"{error}; nothing was sent", refused=True) from None
            doubtful = True
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await _reconnected(instance)
            except TimeoutError:
                raise Unreachable(
                    f"the connection to {instance.quoted} broke while the message was sent, and did not come "
                    f"back: it may have arrived. Use `read` on session {session_id} before sending it again"
                ) from None
        else:
            return


async def has_arrived(instance: Instance, session_id: str, prompt_id: str) -> bool:
    """Whether the agent has the prompt of that id. Raises `InstanceError`."""
    record = await instance.agent.turn(session_id, prompt_id)
    return record.is_stored or record.is_queued


async def arrived_before(instance: Instance, session_id: str, prompt_id: str) -> bool:
    """Whether the agent has a prompt that a server posted which has ended since. Raises `InstanceError`."""
    if await has_arrived(instance, session_id, prompt_id):
        return True
    await asyncio.sleep(STORED_WITHIN)
    return await has_arrived(instance, session_id, prompt_id)


async def _reconnected(instance: Instance) -> None:
    # The request may have broken before the stream noticed: let it notice.
    await asyncio.sleep(0.2)
    await instance.connected.wait()
