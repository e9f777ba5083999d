"""Bills of materials (CycloneDX) of the images: the locked Python packages, and the Debian packages of the base.

`cyclonedx-py` is the CycloneDX project's own tool for Python.
It reads the lock that the images are built from, so that each file's hash is in the bill.
The image itself is asked for Debian's packages: the tools that would do it come neither from PyPI nor from Debian.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from pathlib import Path

_IMAGES_PYTHON: Final = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_version": "3.13",
    "python_full_version": "3.13.0",
    "sys_platform": "linux",
}
_ONE_REQUIREMENT: Final = re.compile(r"(?m)^[a-zA-Z0-9].*(?:\n +--hash.*)*")
QUERY: Final = ("dpkg-query", "--show", "--showformat", "${binary:Package}\t${Version}\t${Architecture}\n")
"""What lists an image's Debian packages, for `of_debian`."""


def for_linux(lock: str) -> str:
    """Return those requirements of a lock for all systems that an image installs."""
    kept = []
    for found in _ONE_REQUIREMENT.finditer(lock):
        marker = Requirement(found[0].partition("\\")[0].strip()).marker
        if marker is None or marker.evaluate(dict(_IMAGES_PYTHON)):
            kept.append(found[0])
    return "\n".join(kept) + "\n"


def of_python(cyclonedx: Path, lock: Path, pyproject: Path) -> dict[str, Any]:
    """Return the bill of a lock."""
    command = [str(cyclonedx), "requirements", "--pyproject", str(pyproject), "--mc-type", "application"]
    done = subprocess.run(
        [*command, "--output-reproducible", "--of", "JSON", "-"],
        input=for_linux(lock.read_text(encoding="utf-8")),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def of_debian(listed: str) -> list[dict[str, str]]:
    """Return the components that `QUERY` listed."""
    components = []
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        name = name.partition(":")[0]
        # https://github.com/package-url/purl-spec: `+` and `:` of versions are escaped.
        purl = f"pkg:deb/debian/{quote(name, safe='.-')}@{quote(version, safe='.-~')}?arch={architecture}"
        components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return components
