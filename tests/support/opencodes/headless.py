"""The real launcher without a screen, on a machine that tests share: with `--headless`, or another verb."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.fleet.registry import register, registration
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.opencodes.opencode import OpenCodeHome

LAUNCHER = str(Path(sys.executable).parent / "opencode-connected")
_START_SECONDS = 120.0
"""It starts OpenCode 2's service, too; many tests at once make that slow."""
_END_SECONDS = 30.0


class Headless:
    """A launcher that makes `directory` reachable under `name`, in a registry directory of this machine.

    `rights` says what may come from afar, where it is not the default.
    """

    def __init__(
        self,
        home: OpenCodeHome,
        directory: Path,
        registry: Path,
        name: str,
        *,
        rights: str = "",
        arguments: Sequence[str] = ("--headless",),
    ) -> None:
        self.directory = directory
        self._arguments = arguments
        self._home = home
        self._registry = registry
        self._name = name
        self._rights = rights
        self._said = home.root / f"launcher-{directory.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The launcher's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def said(self) -> str:
        """Return what it said so far."""
        return self._said.read_text(errors="replace")

    def launch(self) -> None:
        """Start it, and do not wait for anything."""
        self.directory.mkdir(parents=True, exist_ok=True)
        extra = {
            "RELAY_REGISTRY_DIR": str(self._registry),
            "INSTANCE_NAME": self._name,
            "PWD": str(self.directory),
        }
        extra |= {"RELAY_REMOTE": self._rights} if self._rights else {}
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [LAUNCHER, *self._arguments, "--local"],
                cwd=self.directory,
                env=self._home.environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it, and return when it is registered, first or only one here."""
        self.launch()
        try:
            eventually(self._is_registered, "the launcher's registration", within=_START_SECONDS)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End it as a service manager does. One that has ended is no error."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()
        self._process.wait()
        self._process = None

    def has_ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self._process is None or self._process.poll() is not None

    def registration(self) -> dict[str, Any]:
        """Return its registration; `FileNotFoundError` where there is none."""
        fields: dict[str, Any] = json.loads((self._registry / f"{self._name}.json").read_text())
        return fields

    def key(self) -> str:
        """Return what its guard asks for."""
        return (self._registry / f".{self._name}.key").read_text()

    def register_at(self, registry_dir: Path, name: str, port: int) -> None:
        """Register its guard once more, by hand: under another name, reached at another port."""
        registry_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = registry_dir / f".{name}.key"
        key.touch(0o600)
        key.write_text(self.key())
        register(registry_dir, registration(name, port, cwd=str(self.directory)))

    def _is_registered(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            message = f"the launcher ended with {self._process.returncode}: {self.said()[-2000:]}"
            raise RuntimeError(message)
        return (self._registry / f"{self._name}.json").exists()
