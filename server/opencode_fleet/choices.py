"""What a person chose for a message beside its words, held against what the agent there offers."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NamedTuple

from opencode_common.text import one_line, quote
from opencode_fleet.agent import Capability
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_fleet.files import File
    from opencode_fleet.instance import Instance

When = Literal["now", "steer", "queue"]
"""`now`: into an idle session. `steer`: into the turn that runs. `queue`: after it."""
SETTLES_WITHIN = 5.0
"""Seconds in which an agent has read a directory's configuration: until then what it offers may lack some."""
LOOKS_APART = 0.25
MAX_NAMED = 12
"""Names that a refusal lists."""
MAX_COMPARED = 200
"""Names, and characters of each, among which the nearest are looked for."""


class Manner(NamedTuple):
    """How a message is to be taken; an empty agent or model leaves the session as it is."""

    when: When = "now"
    agent: str = ""
    model: str = ""
    """`PROVIDER/MODEL`."""
    files: tuple[File, ...] = ()
    """That go with the message."""


async def offered(instance: Instance, manner: Manner) -> Manner:
    """Return `manner` with agent and model as the agent there spells them.

    Raises:
        Refused: it has no such agent or model; the message lists the nearest.
        InstanceError: what it has could not be fetched.
    """
    agent, model = manner.agent, manner.model
    if agent:
        agent = await chosen_from(instance, agent, instance.agent.agents, "agent")
    if model:
        model = await chosen_from(instance, model, instance.agent.models, "model")
    return manner._replace(agent=agent, model=model)


async def switched(instance: Instance, kind: str, wanted: str) -> Manner:
    """Return what a session goes on with, without a message; `kind` is `agent` or `model`.

    Raises:
        Refused, InstanceError: as `offered`.
    """
    wanted = wanted.strip()
    if not wanted:
        raise Refused(f"`value` is the {kind} to go on with; nothing was done")
    return await offered(instance, Manner(agent=wanted) if kind == "agent" else Manner(model=wanted))


async def chosen_from(
    instance: Instance, wanted: str, fetch: Callable[[str], Awaitable[list[str]]], kind: str
) -> str:
    """Return the one that is meant of what `fetch` tells for the instance's directory.

    Raises:
        Refused: there is none; the message lists the nearest.
        InstanceError: it could not be fetched.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + SETTLES_WITHIN
    while True:
        known = await fetch(instance.state.directory)
        try:
            return one_of(wanted, known, f"{instance.quoted} has no {kind}")
        except Refused:
            if not instance.can(Capability.SETTLES) or loop.time() >= give_up:
                raise
        await asyncio.sleep(LOOKS_APART)


def one_of(wanted: str, known: Sequence[str], complaint: str) -> str:
    """Return the one of `known` that is meant: exactly, else ignoring case.

    Raises:
        Refused: none or several; the message begins with `complaint` and lists the nearest.
    """
    if wanted in known:
        return wanted
    alike = [name for name in known if name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        return alike[0]
    raise Refused(f"{complaint} {one_line(wanted, 80)!r}; {_known(wanted, known)}. Nothing was sent")


def _known(wanted: str, known: Sequence[str]) -> str:
    """Say which names come nearest, or which there are; their own machine chose them."""
    if not known:
        return "it offers none"
    # Comparing takes its time, and another machine says how much there is of it.
    folded = {name[:MAX_COMPARED].casefold(): name for name in known[:MAX_COMPARED]}
    sought = wanted[:MAX_COMPARED].casefold()
    near = get_close_matches(sought, folded, n=5, cutoff=0.5)
    near += [name for name in folded if sought in name and name not in near]
    if near:
        return f"nearest: {_listed([folded[name] for name in near])}"
    return f"it has: {_listed(known)}"


def _listed(names: Sequence[str]) -> str:
    shown = quote(", ".join(one_line(name, 80) for name in names[:MAX_NAMED]), MAX_NAMED * 82)
    more = len(names) - MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
