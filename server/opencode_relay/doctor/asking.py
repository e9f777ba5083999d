"""How programs and ports are asked: never for longer than a few seconds."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Final

SECONDS: Final = 3.0
"""For one program or one connection. What works answers in milliseconds."""
_SBIN: Final = "/usr/sbin:/sbin"


def ask(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str] | None:
    """Run a program to its end; None where it is not there or does not end."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}", "LC_ALL": "C"}
    try:
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def refusal(address: str, port: int) -> str:
    """Return why no connection to the port can be opened; empty where one can."""
    try:
        with socket.create_connection((address, port), SECONDS):
            return ""
    except OSError as error:
        return reason(error)


def reason(error: OSError) -> str:
    """Return it in a few words."""
    return "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
