"""What OpenCode 1 tells of changes: the working tree, what a turn changed, and the to-do list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.diffs import CONTEXT, TOO_LARGE, ChangedFile, merged
from opencode_fleet.agents.http import LARGE_BODY, TooLarge
from opencode_fleet.agents.shapes import Short, Text, Wire
from opencode_fleet.changes import FileChange, Todo, WorkingTree

if TYPE_CHECKING:
    from opencode_fleet.agents.http import AgentClient


class _Branches(Wire):
    branch: Short = ""
    default_branch: Short = ""


class _Todo(Wire):
    content: Text = ""
    status: Short = ""


async def working_tree(client: AgentClient, directory: str) -> WorkingTree:
    """See `Agent.working_tree`."""
    at = {"directory": directory}
    branches = client.one(_Branches, await client.call("GET", "/vcs", params=at))
    counted = client.many(ChangedFile, await client.call("GET", "/vcs/status", params=at, limit=LARGE_BODY))
    try:
        params = {**at, "mode": "git", "context": CONTEXT}
        told = await client.call("GET", "/vcs/diff", params=params, limit=LARGE_BODY)
    except TooLarge:
        told = []  # how much was changed is known all the same
    return WorkingTree(
        branch=branches.branch,
        default_branch=branches.default_branch,
        files=merged(counted, client.many(ChangedFile, told)),
    )


async def turn_changes(client: AgentClient, session_id: str, prompt_id: str) -> tuple[FileChange, ...]:
    """Return what the turn of a person's message changed: of a whole session OpenCode 1.18 tells nothing."""
    path, params = f"/session/{session_id}/diff", {"messageID": prompt_id}
    try:
        told = await client.call("GET", path, params=params, limit=LARGE_BODY)
    except TooLarge as error:
        raise TooLarge(f"{error}. {TOO_LARGE}") from None
    return merged([], client.many(ChangedFile, told))


async def todos(client: AgentClient, session_id: str) -> list[Todo]:
    """See `Agent.todos`."""
    told = client.many(_Todo, await client.call("GET", f"/session/{session_id}/todo"))
    return [Todo(text=each.content, status=each.status) for each in told]
