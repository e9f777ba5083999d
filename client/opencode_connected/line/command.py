"""From `RELAY_SSH_CMD` to the command line of the one ssh that is the line."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Final

from opencode_connected.line.errors import LineError
from opencode_connected.line.protocol import loader

# Each of them withstands a user's ssh_config that says otherwise, and the `-t` that gcloud puts before them.
_OPTIONS: Final = (
    "-T",
    "-a",
    "-x",
    # `Allocated port …` and `Authenticated to …` are said at this level.
    *("-o", "LogLevel=VERBOSE"),
    *("-o", "BatchMode=yes"),
    # A shared connection would swallow that line, and keep the listener when this ssh is gone.
    *("-o", "ControlMaster=no"),
    *("-o", "ControlPath=none"),
    *("-o", "RemoteCommand=none"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "ClearAllForwardings=no"),
    # A clash of the user's own forwards must not end the line; ours is judged by its port.
    *("-o", "ExitOnForwardFailure=no"),
    # The first word on it counts: a user's own `-o Compression=no` in front of it does.
    *("-o", "Compression=yes"),
    *("-o", "ConnectTimeout=5"),
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=2"),
)
_OPTIONS_SINCE_8_7: Final = (
    *("-o", "ForkAfterAuthentication=no"),
    *("-o", "StdinNull=no"),
    *("-o", "SessionType=default"),
)
_QUIET: Final = re.compile(r"-[a-z0-9]*q[a-z0-9]*|(?:-o)? *loglevel.*", re.IGNORECASE)
"""Words of the user's that hide the port; only a `-v` behind them brings it back."""


@dataclass(frozen=True)
class LineSettings:
    """What a line is made of."""

    ssh_command: str
    """What opens a shell on the relay, as one would type it: `ssh me@vm`, `gcloud compute ssh vm --zone Z --`."""
    registry_dir: str
    """Of a plain account; a relative path starts at its home. A provisioned relay has its own."""
    ports: tuple[int, ...]
    """The relay's ports that this client may listen on; empty where any will do."""
    local_port: int
    """Where the tunnel leads on 127.0.0.1 of this machine, unless there is a `socket`."""
    instance_id: str
    """32 hex digits, constant for the launcher's life: by it a reconnect is told from a second instance."""
    socket: str | None = None
    """The unix socket that the tunnel leads to: a path without colons."""
    is_enrolled: bool = False
    """The key is one that `opencode-connected enroll` made: what is wrong with it is mended otherwise."""
    command_name: str = "RELAY_SSH_CMD"
    """What the person calls `ssh_command`: a variable, or a line of a file."""
    provisioned_mark: str | None = None
    """The file on the relay that, if it is there, says that no ordinary account should register. None: never mind."""


def ssh_words(command: str) -> list[str]:
    """Split `RELAY_SSH_CMD` as a shell does, quotes and a leading `~` included.

    Raises:
        LineError: nothing is left, or a quote is not closed.

    """
    try:
        words = [os.path.expanduser(word) for word in shlex.split(command)]  # noqa: PTH111 # words, not all paths
    except ValueError as error:
        raise LineError(
            f"RELAY_SSH_CMD cannot be split into words: {error}",
            hop="command",
            remedy="write it as one would type it in a shell, such as `ssh user@relay`",
            permanent=True,
        ) from error
    if not words:
        raise LineError("RELAY_SSH_CMD is empty", hop="command", remedy="such as `ssh user@relay`", permanent=True)
    return words


def ssh_argv(settings: LineSettings, forward: int | None, nonce: str, *, old_ssh: bool = False) -> list[str]:
    """Return the command line of the line's ssh.

    `forward`: the relay's port that leads to OpenCode, 0 for any, None for a connection without a tunnel.
    `nonce`: what the relay asks for its program with, 32 hex digits.
    `old_ssh`: it is older than 8.7, and stumbles over options that it has no need of.
    """
    words = ssh_words(settings.ssh_command)
    argv = [*words, *_OPTIONS]
    if not old_ssh:
        argv += _OPTIONS_SINCE_8_7
    if any(_QUIET.fullmatch(word) for word in words):
        argv.append("-v")
    if forward is not None:
        argv += ["-R", f"127.0.0.1:{forward}:{settings.socket or f'127.0.0.1:{settings.local_port}'}"]
    return [*argv, loader(nonce)]
