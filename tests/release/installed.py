"""The wheel in a virtual environment that has the packages of chosen extras and no others, without a network."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from support.release.project import metadata

LAUNCHER: Final = ""
"""As an extra: what the package needs without any."""


def install(wheel: Path, directory: Path, extra: str) -> Path:
    """Make the environment as pip would have made it; return where its programs are."""
    venv.create(directory, with_pip=False)
    (site_packages,) = directory.glob("lib/python*/site-packages")
    for name in needed(extra):
        files = distribution(name).files or []
        tops = {file.parts[0] for file in files} - {"..", "__pycache__"}
        for top in tops:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(Path(str(distribution(name).locate_file(top))))
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python"), "--disable-pip-version-check"]
    options = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return directory / "bin"


def needed(extra: str) -> set[str]:
    """Return the names of all packages that this one needs with an extra, as they are installed here."""
    project = metadata()
    extras = project["optional-dependencies"]
    found: set[str] = set()
    done: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in project["dependencies"]]
    waiting += [Requirement(line) for line in extras.get(extra, ())]
    while waiting:
        requirement = waiting.pop()
        for wanted in requirement.extras | {""}:
            if (requirement.name, wanted) in done:
                continue
            done.add((requirement.name, wanted))
            if requirement.name == project["name"]:
                waiting += [Requirement(line) for line in extras.get(wanted, ())]
                continue
            found.add(requirement.name)
            for line in distribution(requirement.name).requires or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": wanted}):
                    waiting.append(further)
    return found
