"""Prompts: what a person says often, as a client's menu has it.

They hold our words and the person's arguments alone. What machines wrote comes by the tools, inside delimiters: in a
prompt it would stand as the person's own word.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from opencode_common.text import one_line

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from opencode_fleet.fleet import Fleet

STAND_UP: Final = "stand-up"
REVIEW: Final = "review"
MAX_ARGUMENT: Final = 200
_ONLY_LOOK: Final = "Only look: send nothing, change nothing, and settle no ask before I have said so."

_STAND_UP_TEXT: Final = f"""\
Give me a stand-up: what happened on all my machines since yesterday at this time.
1. Call `inbox`: what waits for me, and what ended or failed.
2. Call `instances`: who is busy with what, and who is away.
3. Call `sessions`: which sessions changed within the last day.
4. Call `read` for those whose titles do not say enough, five at most.
Then tell me, machine by machine, what was done, what is running, and what failed and why.
End with what waits for me, the oldest first, each by its handle.
Keep it short enough to be read aloud, and say what you could not see.
{_ONLY_LOOK}"""


def stand_up() -> str:
    """Say what happened on all machines since yesterday, and what waits for you."""
    return _STAND_UP_TEXT


def review(
    instance: Annotated[str, Field(description="the instance's name")],
    session: Annotated[str, Field(description="its handle, as s12; default: the whole working tree")] = "",
) -> str:
    """Review what an agent changed, before it is committed."""
    named = f"`instance` {_word(instance)}"
    of_session = f" and `session` {_word(session)}" if session.strip() else ""
    what = "in its last turn" if of_session else "in its git working tree"
    return f"""\
Review what was changed {what}: {named}{of_session}.
1. Call `changes` with that: the files and their diffs. Where a diff is cut, call it again with `file`.
2. Call `read` with that: what was asked for.
Then tell me in one sentence whether the change does what was asked.
List what is wrong with it, the most serious first, each with its file and line; then what is missing, such as tests.
Say what you could not see, and do not guess.
{_ONLY_LOOK}"""


def offer_prompts(server: MCPServer[Fleet]) -> None:
    """Have the server list them and answer with them."""
    server.prompt(name=STAND_UP, title="Stand-up")(stand_up)
    server.prompt(name=REVIEW, title="Review changes")(review)


def _word(text: str) -> str:
    return json.dumps(one_line(text, MAX_ARGUMENT), ensure_ascii=False)
