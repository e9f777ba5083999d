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
_NOT_FROM_AFAR = "what it does is done on the machine itself, and not from afar"
_OF_THE_SCREEN = dict.fromkeys(
    ("clear", "details", "editor", "exit", "export", "help", "quit", "share", "thinking", "themes", "unshare"),
    _NOT_FROM_AFAR,
)
_OF_THE_SCREEN |= dict.fromkeys(("fork", "redo", "rename", "undo"), "`control` does that")
_OF_THE_SCREEN |= dict.fromkeys(("compact", "summarize"), "`control` does that, as “compact”")
_OF_THE_SCREEN |= {
    "agents": "`send` takes an `agent`",
    "models": "`send` takes a `model`",
    "new": "`send` with session='new' does that",
    "sessions": "`sessions` does that",
}
"""What OpenCode's screen takes for a command of its own, and its server does not; and what helps from afar."""


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
            f"/{name} is a command of OpenCode's own screen, and no message for the agent: {_OF_THE_SCREEN[name]}. "
            "Nothing was sent"
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
