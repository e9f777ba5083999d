"""A provisioned relay of the tests as `opencode-relay doctor` looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_relay.doctor.relay import ExaminedGateway, ExaminedRelay
from opencode_relay.settings import load_settings

if TYPE_CHECKING:
    from opencode_common.finding import Finding
    from relay.provisioned import ProvisionedRelay


def looked_at(relay: ProvisionedRelay, gateway: ExaminedGateway | None = None) -> ExaminedRelay:
    return ExaminedRelay(
        relay.etc,
        load_settings(relay.etc),
        gateway,
        sshd=("/usr/sbin/sshd", "-f", str(relay.sshd.directory / "sshd_config")),
        host_key=relay.sshd.directory / "host_key",
    )


def one(findings: list[Finding], check: str) -> Finding:
    found = [finding for finding in findings if finding.check == check]
    assert len(found) == 1, findings
    return found[0]
