"""Who is enrolled, and what they have registered: for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from opencode_common.registration import (
    InvalidRegistration,
    Registration,
    parse_registration,
    read_registration_bytes,
)
from opencode_common.text import one_line

if TYPE_CHECKING:
    from opencode_relay.clients import EnrolledMachines
    from opencode_relay.settings import RelaySettings


@dataclass(frozen=True)
class Listing:
    """One look at the relay."""

    state: EnrolledMachines
    registrations: tuple[Registration, ...]

    @classmethod
    def read(cls, state: EnrolledMachines, settings: RelaySettings) -> Self:
        """Read the registry directory. Raises `OSError` if it cannot be read."""
        found = []
        for path in sorted(settings.registry_dir.iterdir()):
            if path.suffix == ".json" and not path.name.startswith("."):
                try:
                    found.append(parse_registration(read_registration_bytes(path), path.name, settings.ports))
                except (InvalidRegistration, FileNotFoundError):  # gone meanwhile, or not the agent's
                    continue
        return cls(state, tuple(found))

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON is made of."""
        return {
            "clients": [
                {
                    "name": client.name,
                    "first": client.first,
                    "last": client.last,
                    "fingerprint": client.fingerprint,
                    "registrations": [
                        registration.model_dump(by_alias=True, exclude_none=True)
                        for registration in self.registrations
                        if registration.client == client.name
                    ],
                }
                for client in self.state.clients
            ],
            "revoked": [revoked.model_dump(by_alias=True) for revoked in self.state.revoked],
        }

    def to_text(self) -> str:
        """Return it for a terminal."""
        lines = []
        for client in self.state.clients:
            lines.append(f"{client.name}  {client.first}-{client.last}  {client.fingerprint}")
            lines += [
                f"  {registration.name}  port {registration.port}  {one_line(registration.cwd, 60)}"
                for registration in self.registrations
                if registration.client == client.name
            ]
        lines += [f"revoked {entry.at}: {entry.name}  {entry.fingerprint}" for entry in self.state.revoked]
        return "\n".join(lines) or "no client is enrolled: name them in relay_clients and run the playbook relay.yml"
