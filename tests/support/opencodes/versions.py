"""OpenCode of any version, installed by npm where it is not one of the pinned ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.opencodes.opencode import OPENCODE_VERSION, find_opencode
from support.opencodes.opencode2 import OPENCODE2_VERSION, find_opencode2
from support.project.npm import install_from_npm

if TYPE_CHECKING:
    from pathlib import Path


def opencode_of(version: str) -> Path:
    """Return the binary of that version."""
    if version == OPENCODE_VERSION:
        return find_opencode()
    if version == OPENCODE2_VERSION:
        return find_opencode2()
    if version.startswith("1."):
        return install_from_npm("opencode-ai", version, name=f"opencode-{version}") / ".bin" / "opencode"
    package = "@opencode/cli-linux-x64-baseline"
    return install_from_npm(package, version, name=f"opencode-{version}") / package / "bin" / "opencode"
