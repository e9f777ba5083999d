"""A person's word from a page: it settles what the page had before them, and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from opencode_fleet.errors import NotOpen
from opencode_mcp.caller import DRIVE
from opencode_mcp.views.digests import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_fleet.answers import Settlement
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_mcp.face import Face


class Decided(NamedTuple):
    """What was settled."""

    instance: Instance
    settlement: Settlement


async def decide(face: Face, handle: str, digest: str, answer: str | list[str]) -> Decided:
    """Settle the ask of this handle, if `digest` stands for it as it is now; its turn goes on by itself.

    Raises:
        Refused: there is no such ask, it is another by now, or the answer does not fit; nothing was settled.
        InstanceError, NoSuchInstance: its machine is away, or said why not; it may be `is_doubtful`.
    """
    # A page knows names as they are shown, and the handle of an ask is exact.
    name, ask_id = face.handles.ask(handle.strip())
    target = await face.fleet.find_live(name)

    def is_same(ask: Ask) -> bool:
        return digest_of(target, ask) == digest

    with by_handle(face, target):
        settlement = await face.driver.decide(target, ask_id, answer, is_same, may_prompt=DRIVE in face.caller.may)
    return Decided(target, settlement)


@contextmanager
def by_handle(face: Face, target: Instance) -> Iterator[None]:
    """Name an ask that is not open as the person knows it."""
    try:
        yield
    except NotOpen as error:
        raise error.called(face.handles.known_ask(target.name, error.ask_id)) from None
