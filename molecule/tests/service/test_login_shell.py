"""What a person finds who logs in at a managed machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.hosts.scenario import Machine


def test_a_login_shell_knows_the_relay_where_the_profile_was_asked_for(laptop: Machine) -> None:
    said = laptop.host.output(
        "bash", "-ic", 'printf %s "$RELAY_SSH_CMD"; command -v opencode-connected', user=laptop.person
    )
    assert "StrictHostKeyChecking=yes" in said
    assert said.endswith(f"/home/{laptop.person}/.local/bin/opencode-connected")
