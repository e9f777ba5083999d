"""The product's own command with sign-in by password, and the fixture server behind it, or others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.gateway.service import COMMAND, Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ProductGateway(Gateway):
    """A context manager; `settings` are of its `gateway.json`."""

    def __init__(self, directory: Path, servers: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.data_dir = directory / "data"
        self.data_dir.mkdir(parents=True, mode=0o700)
        super().__init__(directory, servers or {"fixture": fixture_entry()}, **settings)
        self._command = [str(COMMAND), "--config", str(self.config), "serve"]

    def lists(self, *arguments: str) -> Any:
        """Return what a command shows with `--json`."""
        return json.loads(self.owner(*arguments, "--json").stdout)

    def post(self, path: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Send a POST; return the status and the text."""
        answer = self.request("POST", path, headers, content)
        return answer.status_code, answer.text
