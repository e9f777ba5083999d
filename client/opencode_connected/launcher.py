"""The launcher: which OpenCode is there, and the run that fits it.

Nothing heavy is imported before OpenCode runs: a person waits for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from opencode_connected.agents import opencode1, opencode2
from opencode_connected.agents.generation import KnownGeneration
from opencode_connected.agents.run import working_directory
from opencode_connected.errors import UsageError
from opencode_connected.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.agents.run import Launch, Run
    from opencode_connected.settings import LauncherSettings

_COPIED = (
    "this is the first start of OpenCode 2 here: it has copied the sessions of OpenCode 1, or does now, this once; "
    "what either of them writes from now on the other does not see"
)


def launch(settings: LauncherSettings, what: Launch, say: Callable[[str], None]) -> int:
    """Run OpenCode to its end; return its exit code, or minus the number of the signal that ended it.

    `say` shows one line to the person at the terminal; it is called only while OpenCode does not have it.
    Raises `LauncherError` if OpenCode could not be started, or had to be ended.
    """
    working_directory(settings)  # raises if it is gone, and then nothing else is worth a look
    known = KnownGeneration(settings.state_dir)
    installed = known.find(settings.environment)
    checked = opencode1.checked_arguments if installed.generation == 1 else opencode2.checked_arguments
    arguments = checked(what.arguments)
    if not what.headless and not Terminal.is_there():
        raise UsageError("OpenCode's interface needs a terminal: run it in one, or use --headless")
    if what.headless and installed.generation > 1 and arguments:
        raise UsageError("--headless starts nothing that arguments could go to: OpenCode 2 is one service for all")
    terminal = None if what.headless else Terminal()
    program = [installed.binary, *arguments]
    run: Run
    if installed.generation == 1:
        from opencode_connected.agents.owned import OwnedRun  # noqa: PLC0415 - only the one that is needed

        run = OwnedRun(settings, what, installed, program, say=say)
    else:
        from opencode_connected.agents.shared import SharedRun  # noqa: PLC0415 - as above

        run = SharedRun(settings, what, installed, program, known=known, say=say)
    if known.began(installed.generation):
        say(_COPIED)
    code = asyncio.run(run.run())
    if terminal and code < 0:
        terminal.restore()
    run.say_afterwards()
    return code
