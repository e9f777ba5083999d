"""A gateway with the real server behind it, which tells one person by a webhook; several may share a journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opencode_notify.outlets.webhook import new_secret
from support.chat.mcp_client import SERVER_COMMAND
from support.gateway.service import Gateway

if TYPE_CHECKING:
    from pathlib import Path

    from support.pages.fake_receiver import Receiver


def telling_gateway(directory: Path, registry: Path, state: Path | None, hook: Receiver, **rules: Any) -> Gateway:
    """Return one that is not started yet; `rules`: of the person.

    `state`: of the journal; None: its server has one that the gateway knows nothing of, and nobody is told.
    """
    entry = {"RELAY_REGISTRY_DIR": str(registry), "XDG_STATE_HOME": str(directory / "state-home")}
    if state is not None:
        entry["RELAY_STATE_DIR"] = str(state)
    servers = {"mcpServers": {"opencode": {"command": str(SERVER_COMMAND), "env": entry}}}
    gateway = Gateway(directory, servers)
    data = directory / "data"
    data.mkdir(mode=0o700)
    url = f"http://localhost:{hook.ports['http']}/hook"
    outlet = {"name": "hook", "kind": "webhook", "url": url, "secret": new_secret(), "allow_private": True}
    people = data / "notify.json"
    people.touch(0o600)
    people.write_text(json.dumps({"ann": {"outlets": [outlet], "rules": rules}}))
    return gateway
