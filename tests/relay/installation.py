"""The server package as it is installed on a relay: run by users who may not look into the checkout's parents."""

from __future__ import annotations

import secrets
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_SERVER = Path(__file__).parents[2] / "server"


class Installation:
    """A virtual environment of this very interpreter, its packages and the checkout, readable for every user.

    What a home directory hides is mounted where it is not hidden. Needs root.
    """

    def __init__(self) -> None:
        self.root = Path("/run") / f"oc{secrets.token_hex(5)}"
        self.python = self.root / "venv" / "bin" / "python"
        self._mounted: list[Path] = []

    def __enter__(self) -> Self:
        base, site, server = (self.root / name for name in ("base", "site", "server"))
        for source, target in ((sys.base_prefix, base), (sysconfig.get_path("purelib"), site), (_SERVER, server)):
            target.mkdir(parents=True)
            subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
            self._mounted.append(target)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = self.root / "venv" / "lib" / version / "site-packages"
        packages.mkdir(parents=True)
        (packages / "relay.pth").write_text(f"{server}\n{site}\n")
        self.python.parent.mkdir()
        self.python.symlink_to(base / "bin" / version)
        (self.root / "venv" / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for target in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(target)], check=True)
            target.rmdir()
        subprocess.run(["rm", "-r", "--one-file-system", str(self.root)], check=True)
