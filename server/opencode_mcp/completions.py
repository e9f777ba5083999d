"""Completions: names of instances, where a prompt or a resource asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp_types import Completion, PromptReference

from opencode_mcp.prompts import REVIEW
from opencode_mcp.resources import INSTANCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_types import CompletionArgument, CompletionContext, ResourceTemplateReference

    from opencode_fleet.fleet import Fleet

MOST: Final = 100
"""Values of one answer, as the protocol has it."""


def names_of(
    fleet: Fleet,
) -> Callable[
    [PromptReference | ResourceTemplateReference, CompletionArgument, CompletionContext | None],
    Awaitable[Completion | None],
]:
    """Return what completes the arguments that are the name of an instance of `fleet`."""

    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        _known: CompletionContext | None,
    ) -> Completion | None:
        asked = (ref.name if isinstance(ref, PromptReference) else ref.uri, argument.name)
        if asked not in {(REVIEW, "instance"), (INSTANCE, "name")}:
            return None
        begun = argument.value.casefold()
        found = sorted(each.name for each in await fleet.instances() if begun in each.name.casefold())
        return Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)

    return complete
