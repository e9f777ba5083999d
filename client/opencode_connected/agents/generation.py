"""Which OpenCode `opencode` is: the program on PATH, its version, and with that the generation of its API.

Asking costs 0.2 s (OpenCode 2) to 1.2 s (OpenCode 1), so the answer is kept for a program file that stays the same.
Only the standard library is used: a person waits for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected.errors import CannotExecute, OpenCodeMissing
from opencode_connected.files import write_private
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

TESTED_VERSIONS = {1: "1.18", 2: "2.0"}
"""The series of each generation that this release was tested with; others are said to be untested."""
INSTALL_HINT = (
    "install OpenCode 2 with `curl -fsSL https://opencode.ai/install | bash`, "
    "or OpenCode 1 with `npm install -g opencode-ai`"
)

_PLACES = (
    ".opencode/bin",
    ".local/bin",
    ".bun/bin",
    ".nvm/versions/node/*/bin",
    ".local/share/fnm/node-versions/*/installation/bin",
    ".volta/bin",
    ".asdf/shims",
    ".local/share/mise/shims",
    ".npm-global/bin",
    ".local/share/pnpm",
    ".yarn/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
)
"""Where installers and managers of Node put it, below the home directory or absolute. A shell that reads no startup
file, as of a service or over ssh, has not all of them on its PATH."""
_OLDEST = (1, 1)
"""What is older has no routes for permissions that could be answered from afar."""
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+\S*")
_SOURCE_BUILD = "0.0.0"
_UNKNOWN = "unknown"
_VERSION_SECONDS = 20.0
"""It takes half a second; the first start after an installation unpacks."""
_NOT_FOUND = 127
_NOT_EXECUTED = (126, _NOT_FOUND)
"""What shells and `env` end with, as in a script whose `node` is not there."""
_MAX_CACHE_BYTES = 16 * 1024


@dataclass(frozen=True)
class Installed:
    """The OpenCode on PATH."""

    binary: str
    version: str
    """As it tells it, such as `1.18.33`; `unknown` for a build that tells none."""
    generation: int
    """1, or 2 for that and whatever came after it, which the service's own API description decides on."""

    @property
    def is_tested(self) -> bool:
        """Tell whether this release was tested with its series."""
        return self.version.startswith(f"{TESTED_VERSIONS[self.generation]}.")


def find_binary(environment: Mapping[str, str]) -> str:
    """Return the path of the `opencode` on PATH."""
    if found := shutil.which("opencode", path=environment.get("PATH")):
        return found
    if elsewhere := _elsewhere(environment):
        raise OpenCodeMissing(
            f"opencode is not on this shell's PATH, but found at {elsewhere}",
            f'put it on PATH: export PATH="{elsewhere.parent}:$PATH", also in your shell\'s startup file',
        )
    raise OpenCodeMissing("opencode is not on PATH", INSTALL_HINT)


def _elsewhere(environment: Mapping[str, str]) -> Path | None:
    """Return an `opencode` where installers put it, the newest if there are several."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - that one raises nothing
    found = [
        path
        for pattern in _PLACES
        for path in (Path("/") if pattern.startswith("/") else home).glob(f"{pattern.lstrip('/')}/opencode")
        if path.is_file() and os.access(path, os.X_OK)
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def ask(binary: str, environment: Mapping[str, str]) -> Installed:
    """Ask the program for its version; `OpenCodeMissing` says in one line why it cannot be driven."""
    try:
        answer = subprocess.run(
            [binary, "--version"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except OSError as error:
        raise CannotExecute(binary, error) from error
    except subprocess.SubprocessError as error:
        raise _failing(binary, str(error)) from error
    if answer.returncode != 0:
        said = answer.stderr.decode(errors="replace").split("\n")
        last = next((line for line in map(printable, reversed(said)) if line), "it says nothing")
        code = answer.returncode
        if code in _NOT_EXECUTED:
            raise CannotExecute(binary, last, is_missing=code == _NOT_FOUND)
        raise _failing(binary, f"{last} ({f'exit status {code}' if code > 0 else f'signal {-code}'})")
    return installed(binary, answer.stdout.decode(errors="replace"))


def installed(binary: str, said: str) -> Installed:
    """Return what `said`, the answer to `--version`, means; `OpenCodeMissing` if that version cannot be driven."""
    match = _VERSION.search(said)
    if match is None or match[0].startswith(_SOURCE_BUILD):
        return Installed(binary, _UNKNOWN, 1)
    version = printable(match[0], limit=40)
    number = (int(match[1]), int(match[2]))
    if number < _OLDEST:
        raise OpenCodeMissing(
            f"{binary} is OpenCode {version}, which cannot be driven from afar",
            f"{'.'.join(map(str, _OLDEST))} or later can: {INSTALL_HINT}",
        )
    return Installed(binary, version, min(number[0], 2))


class KnownGeneration:
    """What was learnt about OpenCode programs before: a file in the state directory. Without it nothing is wrong."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "opencode.json"
        self._facts = self._read()

    def find(self, environment: Mapping[str, str]) -> Installed:
        """Return the OpenCode on PATH, asked for its version if the program changed since."""
        binary = find_binary(environment)
        stamp = _stamp(binary)
        version = self._facts.get("version")
        if stamp and self._facts.get("stamp") == stamp and isinstance(version, str):
            return installed(binary, version)
        found = ask(binary, environment)
        if stamp:
            self._note(stamp=stamp, version=found.version)
        return found

    def began(self, generation: int) -> bool:
        """Note that `generation` starts now; tell whether it is the first start of OpenCode 2 after OpenCode 1."""
        before = self._facts.get("generation")
        if before != generation:
            self._note(generation=generation)
        return before == 1 and generation > 1

    def can_be_driven(self, version: str) -> bool:
        """Tell whether an OpenCode 2 of `version` was seen to have all operations that are needed."""
        return self._facts.get("drivable") == version

    def note_drivable(self, version: str) -> None:
        """Note that an OpenCode 2 of `version` has all operations that are needed."""
        self._note(drivable=version)

    def _note(self, **facts: object) -> None:
        self._facts |= facts
        with suppress(OSError):
            write_private(self._path, json.dumps(self._facts))

    def _read(self) -> dict[str, object]:
        try:
            with self._path.open("rb") as file:
                facts = json.loads(file.read(_MAX_CACHE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}


def _stamp(binary: str) -> list[object] | None:
    """Return what changes with the program; None where that cannot be told.

    A script or a shim of a version manager stays the same while what it starts changes. npm gives every file the
    same time of change, so the inode's own times count.
    """
    real = Path(os.path.realpath(binary))
    try:
        with real.open("rb") as file:
            is_script = file.read(2) == b"#!"
            found = os.fstat(file.fileno())
    except OSError:
        return None
    if is_script or not real.name.startswith("opencode"):
        return None
    return [binary, str(real), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _failing(binary: str, why: str) -> OpenCodeMissing:
    return OpenCodeMissing(
        printable(f"{binary} --version fails: {why}", limit=1000),
        f"run `{binary} --version` by hand: OpenCode is there, and something that it needs may not be",
    )
