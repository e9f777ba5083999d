"""The configuration that docs/gateways.md shows, made to fit the machine that tests."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = Path(__file__).parents[2] / "docs" / "gateways.md"
_REGISTRY = "/var/lib/opencode-relay"
_ACCOUNT = "998:998"
_IMAGE = "opencode-relay/server"


class Documented:
    """What stands on that page, with `account` (uid:gid), `registry_dir` and `image` in place of the page's own."""

    def __init__(self, account: str, registry_dir: Path, image: str) -> None:
        self._account = account
        self._registry_dir = registry_dir
        self._image = image

    def run(self, *more: str) -> list[str]:
        """Return the command `docker run`, with `more` of its options."""
        command = shlex.split(self._block("sh", title=""))
        return [*command[:-1], *more, command[-1]]

    def command(self, title: str) -> list[str]:
        """Return another command, by the word beside its language."""
        return shlex.split(self._block("sh", title))

    def mcp_servers(self) -> dict[str, Any]:
        """Return the `mcpServers` file."""
        content: dict[str, Any] = json.loads(self._block("json", "mcpServers"))
        if "DOCKER_HOST" in os.environ:
            content["mcpServers"]["opencode"]["env"] = {"DOCKER_HOST": os.environ["DOCKER_HOST"]}
        return content

    def servers(self) -> dict[str, Any]:
        """Return the flat `servers.json`."""
        content: dict[str, Any] = json.loads(self._block("json", "servers"))
        content["opencode"]["env_keys"] = ["DOCKER_HOST"]
        return content

    def _block(self, language: str, title: str) -> str:
        opening = f"{language} {title}".rstrip()
        found: Sequence[str] = re.findall(rf"^```{opening}\n(.*?)^```$", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
        assert len(found) == 1, f"{_PAGE.name} has {len(found)} blocks {opening!r}"
        shown = found[0]
        for written, here in (
            (f"{_REGISTRY}:{_REGISTRY}:ro", f"{self._registry_dir}:{_REGISTRY}:ro"),
            (_ACCOUNT, self._account),
            (_IMAGE, self._image),
        ):
            if "docker" in shown:
                assert written in shown, f"{_PAGE.name}: no {written} in the block {opening!r}"
            shown = shown.replace(written, here)
        return shown
