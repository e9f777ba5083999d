"""How programs and ports are asked: never for longer than a few seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from queue import Queue
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

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


def beside(call: Callable[[], T]) -> Callable[[], T]:
    """Begin a call in a thread of its own; return what, once, waits for its answer or raises its error."""
    answers: Queue[T | Exception] = Queue()

    def run() -> None:
        try:
            answers.put(call())
        except Exception as error:  # noqa: BLE001 # it is the caller's
            answers.put(error)

    def answer() -> T:
        told = answers.get()
        if isinstance(told, Exception):
            raise told
        return told

    # A daemon, unlike a pool's: the interpreter waits for those at its end, however long they hang.
    threading.Thread(target=run, daemon=True).start()
    return answer


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
