"""The environment of the service: a file that is the person's alone, since a setting may hold a secret.

What it is written in is read alike by systemd (`EnvironmentFile=`) and by a shell: `NAME="value"`, with a backslash
before what would mean something there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opencode_connected.agents.outside import PASSED_ON
from opencode_connected.errors import UsageError
from opencode_connected.settings import PASSWORDS, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPECIAL = re.compile(r'(["\\$`])')


def written(environment: Mapping[str, str]) -> str:
    """Return the file for a service that is to be as the launcher would be with `environment`.

    Raises:
        UsageError: a value cannot be written down.

    """
    names = sorted({*VARIABLES, *PASSWORDS, *PASSED_ON})
    return "".join(_line(name, environment[name]) for name in names if environment.get(name))


def setting(content: str, name: str) -> str:
    """Return what a file that `written` made sets `name` to; empty where it does not."""
    start = f'{name}="'
    line = next((each for each in content.split("\n") if each.startswith(start) and each.endswith('"')), "")
    return re.sub(r"\\(.)", r"\1", line.removeprefix(start)[:-1])


def _line(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} has bytes that are no UTF-8, and a service can have no such thing") from error
    return '{}="{}"\n'.format(name, _SPECIAL.sub(r"\\\1", value))
