"""The tool `changes`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from mcp_types import CallToolResult
from pydantic import Field

from opencode_common.text import bare, one_line
from opencode_fleet.agent import Capability
from opencode_fleet.changes import Todo, WorkingTree
from opencode_fleet.errors import InstanceError
from opencode_mcp.face import Face
from opencode_mcp.tool import InstanceName, Tool, answered, optional_text
from opencode_mcp.views.changes import ChangesResult, changes_result, changes_text, chosen
from opencode_mcp.views.rows import MAX_TEXT

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance

_PROBLEM_LENGTH = 300


async def changes(
    face: Face,
    instance: InstanceName,
    session: Annotated[str | None, optional_text("what its last turn changed")] = None,
    file: Annotated[str | None, optional_text("only this one"), Field(max_length=4096)] = None,
    max_chars: Annotated[int, Field(ge=1_000, le=200_000)] = MAX_TEXT,
) -> Annotated[CallToolResult, ChangesResult]:
    """Show what is changed in an instance's git working tree, branch, diffs, and its agent's to-do list."""
    target = await face.fleet.find_live(instance)
    wanted = face.handles.session_id(target, session)
    found = await face.driver.sessions.to_read(target, wanted)
    if wanted and found is not None:
        tree = WorkingTree(files=await target.agent.turn_changes(found.id))
        what = f"what the last turn of session {found.id} changed"
    else:
        tree = await target.agent.working_tree(target.state.directory)
        what = "its working tree"
    tree = replace(tree, files=tuple(chosen(tree.files, (file or "").strip())))
    # Of one file nobody wants to know what else there is to do.
    todos, problem = await _todos(target, found.id) if found is not None and not file else ([], "")
    session_id = found.id if found is not None else ""
    result = changes_result(target.name, session_id, tree, todos, problem=problem, max_chars=max_chars)
    lacks_list = not (found is None or file or todos or problem or target.can(Capability.LISTS))
    return answered(changes_text(result, what, lacks_list=lacks_list), result)


async def _todos(target: Instance, session_id: str) -> tuple[list[Todo], str]:
    """Return the to-do list, and why it is not to be had, which is no reason to show nothing."""
    try:
        return await target.agent.todos(session_id), ""
    except InstanceError as error:
        return [], one_line(bare(str(error)), _PROBLEM_LENGTH)


TOOL = Tool(changes, "Show what was changed", is_read_only=True)
