"""What the tests of a relay with a gateway stand on besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.hosts.chain import ScenarioGateway

if TYPE_CHECKING:
    from support.hosts.scenario import ScenarioRelay


@pytest.fixture(scope="session")
def gateway(relay: ScenarioRelay, hosts: dict[str, dict[str, Any]]) -> ScenarioGateway:
    """The relay's gateway."""
    values = hosts["relay"]
    return ScenarioGateway(
        relay, values["relay_domain"], values["relay_gateway_port"], values["relay_gateway_data_dir"]
    )
