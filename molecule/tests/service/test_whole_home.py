"""The service of the whole home, which the laptop has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.hosts.scenario import Machine


@pytest.mark.usefixtures("fleet")
def test_the_service_of_the_whole_home_says_how_it_is(laptop: Machine) -> None:
    status = json.loads(laptop.launcher("service", "status", "--json").stdout)
    assert (status["state"], status["starts"]) == ("active", "boot")
