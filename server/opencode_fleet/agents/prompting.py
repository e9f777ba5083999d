"""What posting a message with files takes, whatever the agent is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opencode_fleet.agents.http import REQUEST_TIMEOUT
from opencode_fleet.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_fleet.model import Prompt

_BYTES_A_SECOND: Final = 100_000
"""On a slow line, encoded: the guard waits a minute for the most that it takes."""


def prompt_timeout(prompt: Prompt) -> float | None:
    """Return for how many seconds nothing may be heard while `prompt` is posted; None: as long as with any call."""
    size = sum(len(file.content) for file in prompt.files)
    return REQUEST_TIMEOUT + size * 4 / 3 / _BYTES_A_SECOND if size else None


@contextmanager
def naming_files(prompt: Prompt) -> Iterator[None]:
    """Say, where the guard refuses a message with files, what helps if it is for them."""
    try:
        yield
    except Forbidden as error:
        if not prompt.files:
            raise
        raise Forbidden(
            f"{error}; nothing was sent. If it is for the files: update opencode-connected on that laptop, or send "
            "the message without them"
        ) from None
