"""The tool `instances`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from mcp_types import CallToolResult

from opencode_mcp.face import Face
from opencode_mcp.tool import Tool, answered
from opencode_mcp.views.instances import InstancesResult, fitting, instances_text


async def instances(face: Face) -> Annotated[CallToolResult, InstancesResult]:
    """List every OpenCode instance: state, directory, newest session, what it waits for."""
    listed = [face.rows.of(instance) for instance in await face.fleet.instances()]
    shown = fitting([line for _, line in listed])
    result = InstancesResult.model_construct(
        instances=[row for row, _ in listed[:shown]],
        left_out=dict(Counter(row.state for row, _ in listed[shown:])),
        problems=face.fleet.problems(),
    )
    return answered(instances_text([line for _, line in listed[:shown]], result, face.fleet.absence()), result)


TOOL = Tool(instances, "List instances", is_read_only=True)
