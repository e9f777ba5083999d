"""The tool `instances`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from mcp_types import CallToolResult
from pydantic import Field

from opencode_common.text import one_line
from opencode_mcp.face import Face
from opencode_mcp.tool import Tool, answered
from opencode_mcp.views.instances import (
    MAX_ROWS,
    InstancesResult,
    fits,
    fitting,
    in_order,
    instances_text,
    kept_elsewhere,
)
from opencode_mcp.views.shares import counted, in_turns


async def instances(
    face: Face,
    filter: Annotated[  # noqa: A002 - the argument's name for clients
        str, Field(description="words: a state, or part of a name, machine, directory or title", max_length=200)
    ] = "",
) -> Annotated[CallToolResult, InstancesResult]:
    """List the OpenCode instances, what needs the person first: state, directory, newest session."""
    words = filter.casefold().split()
    everyone = await face.fleet.instances()
    listed = in_order(instance for instance in everyone if fits(instance, words))
    turns = in_turns([instance.endpoint.machine for instance in listed])
    kept_for = face.outbox.counts()
    rows = dict(zip(turns, face.rows.of([listed[place] for place in turns[:MAX_ROWS]], kept_for), strict=False))
    shown = fitting([line for _, line in rows.values()])
    kept = [rows[place] for place in sorted(turns[:shown])]
    left_out = [listed[place] for place in sorted(turns[shown:])]
    result = InstancesResult.model_construct(
        instances=[row for row, _ in kept],
        left_out=dict(Counter(instance.state_name() for instance in left_out)),
        problems=[
            *face.fleet.problems(),
            *([face.journal.trouble] if face.journal.trouble else []),
            *kept_elsewhere(kept_for, everyone),
        ],
    )
    absence = face.fleet.absence()
    if everyone and not listed:
        absence = f"none of {len(everyone)} instances fits {one_line(filter, 80)!r}"
    whose = counted(instance.endpoint.machine for instance in left_out)
    return answered(instances_text([line for _, line in kept], result, absence, whose), result)


TOOL = Tool(instances, "List instances", is_read_only=True)
