"""A user's machine with OpenCode 2, and the guard there as a reader of its registry reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from client.launched import Machine
from support.chat.plain_http import NO_TLS

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.opencode import OpenCodeHome


def machine_of(home: OpenCodeHome, tmp_path: Path) -> Machine:
    """Return the machine of whoever has this home: OpenCode's service has its files there too."""
    project = home.root / "project"
    project.mkdir(exist_ok=True)
    return Machine(home, tmp_path / "registry", project, home.root / ".local" / "state", home.root / ".config")


def key_of(machine: Machine, name: str) -> str:
    """Return what the guard of the registration `name` asks for."""
    return (machine.registry_dir / f".{name}.key").read_text().strip()


def guard_of(machine: Machine, *, auth: tuple[str, str] | None = None) -> httpx.Client:
    """Return a client of the guard of the only registration there is."""
    (registration,) = machine.registrations().values()
    credentials = auth or ("opencode", key_of(machine, registration["name"]))
    url = f"http://127.0.0.1:{registration['port']}"
    return httpx.Client(base_url=url, auth=credentials, trust_env=False, timeout=30, verify=NO_TLS)


def told(machine: Machine) -> dict[str, Any]:
    """Return what the guard tells of itself."""
    with guard_of(machine) as client:
        answer = client.get("/opencode-relay/guard")
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


def directories(machine: Machine) -> dict[str, str | None]:
    """Return what the guard lets through: names by directory."""
    return {entry["path"]: entry.get("name") for entry in told(machine)["directories"]}
