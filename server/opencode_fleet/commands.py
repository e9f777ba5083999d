"""Messages that are commands of the agent: `/name arguments`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from opencode_fleet.choices import chosen_from
from opencode_fleet.errors import InstanceError, Refused, Unreachable, Unresponsive

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Prompt

_COMMAND = re.compile(r"/(\w\S*)\s*(.*)", re.DOTALL)
_OF_THE_SCREEN = frozenset(
    {
        "agents",
        "clear",
        "compact",
        "details",
        "editor",
        "exit",
        "export",
        "fork",
        "help",
        "models",
        "new",
        "quit",
        "redo",
        "rename",
        "sessions",
        "share",
        "summarize",
        "thinking",
        "themes",
        "undo",
        "unshare",
    }
)
"""What OpenCode's screen takes for a command of its own, and its server does not."""


class Command(NamedTuple):
    """A command of the agent's."""

    name: str
    arguments: str


async def command_of(instance: Instance, message: str) -> Command | None:
    """Return the command that a message is; None: it does not begin like one.

    Raises:
        Refused: the agent there has no such command; the message lists the nearest.
        InstanceError: what it has could not be fetched.
    """
    match = _COMMAND.fullmatch(message.strip())
    if match is None:
        return None
    name, arguments = match[1], match[2]
    if name in _OF_THE_SCREEN and name not in await instance.agent.commands(instance.state.directory):
        raise Refused(
            f"/{name} is a command of OpenCode's own screen, and no message for the agent; nothing was sent. What "
            "it does is done by `control`, if at all from afar, else on the machine itself"
        )
    try:
        return Command(await chosen_from(instance, name, instance.agent.commands, "command"), arguments)
    except Refused as error:
        raise Refused(f"{error}. A message that is no command begins with another character than /") from None


def is_command(message: str) -> bool:
    """Whether a message begins like a command."""
    return _COMMAND.fullmatch(message.strip()) is not None


async def run_once(instance: Instance, name: str, prompt: Prompt) -> str:
    """Run a command with the prompt's text as arguments; see `Agent.run`.

    Raises:
        InstanceError: it was not accepted; the message says whether it may run all the same.
    """
    try:
        return await instance.agent.run(name, prompt)
    except InstanceError as error:
        if isinstance(error, Unreachable) and error.refused:
            raise Unreachable(f"{error}; nothing was sent", refused=True) from None
        if not error.is_doubtful:
            raise
        raise Unresponsive(
            f"{error}. So it is not known whether /{name} runs: it may run all the same, and is not run again by "
            f"itself. Use `read` on session {prompt.session_id} before sending it again"
        ) from None
