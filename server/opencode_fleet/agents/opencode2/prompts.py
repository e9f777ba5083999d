"""A person's message as OpenCode 2 takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opencode_fleet.agents.http import LARGE_BODY
from opencode_fleet.agents.prompting import naming_files, prompt_timeout

if TYPE_CHECKING:
    from opencode_fleet.agents.opencode2.records import Calls
    from opencode_fleet.model import Prompt


async def post_prompt(calls: Calls, prompt: Prompt) -> object:
    """Post a message; return the answer, which repeats it. Raises what `Calls.call` does."""
    body: dict[str, Any] = {"id": prompt.id, "text": prompt.text, "delivery": prompt.delivery}
    if prompt.files:
        body["files"] = [{"uri": file.uri, "name": file.name} for file in prompt.files]
    with naming_files(prompt):
        return await calls.call(
            "session.prompt", prompt.session_id, body=body, limit=LARGE_BODY, timeout=prompt_timeout(prompt)
        )
