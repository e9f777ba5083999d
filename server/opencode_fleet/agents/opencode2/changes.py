"""What OpenCode 2 tells of changes: the working tree, and what a session's newest turn changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from opencode_fleet.agents.diffs import CONTEXT, TOO_LARGE, ChangedFile, merged
from opencode_fleet.agents.http import LARGE_BODY, TooLarge
from opencode_fleet.agents.shapes import Short, Wire
from opencode_fleet.changes import FileChange, WorkingTree

if TYPE_CHECKING:
    from opencode_fleet.agents.opencode2.records import Calls


class _Branch(Wire):
    current: Short = ""
    default: Short = ""


class _Vcs(Wire):
    branch: Annotated[_Branch, BeforeValidator(lambda value: value if isinstance(value, dict) else {})] = Field(
        default_factory=_Branch
    )


async def working_tree(calls: Calls, directory: str) -> WorkingTree:
    """See `Agent.working_tree`."""
    at = {"location[directory]": directory}
    counted = calls.client.many(ChangedFile, await calls.data("vcs.status", params=at, limit=LARGE_BODY))
    try:
        params = {**at, "mode": "working", "context": CONTEXT}
        told = await calls.data("vcs.diff", params=params, limit=LARGE_BODY)
    except TooLarge:
        told = []  # how much was changed is known all the same
    # Last: right after it begins with a directory, OpenCode 2 tells no branch.
    vcs = calls.client.one(_Vcs, await calls.data("vcs.get", params=at))
    return WorkingTree(
        branch=vcs.branch.current,
        default_branch=vcs.branch.default,
        files=merged(counted, calls.client.many(ChangedFile, told)),
    )


async def turn_changes(calls: Calls, session_id: str) -> tuple[FileChange, ...]:
    """See `Agent.turn_changes`."""
    try:
        told = await calls.data("session.diff", session_id, params={"context": CONTEXT}, limit=LARGE_BODY)
    except TooLarge as error:
        raise TooLarge(f"{error}. {TOO_LARGE}") from None
    return merged([], calls.client.many(ChangedFile, told))
