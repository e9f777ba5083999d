"""The official conformance suite, in both revisions: what fails stands in a baseline, with its reason.

Against the gateway with a fixture server behind it, and against our server as chat clients reach it: over HTTP,
through the gateway. The suite can send no token, so requests without one count as made with one here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.chat import conformance_server
from support.chat.conformance import REVISIONS, run_conformance
from support.gateway.service import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

BASELINES = Path(__file__).with_name("conformance")
_FIXTURE = Path(conformance_server.__file__)


@pytest.fixture(scope="module")
def before_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tools = re.findall(r"^(?:async )?def ([a-z]\w+)\(", _FIXTURE.read_text(), re.MULTILINE)
    servers = {"fixture": {"command": sys.executable, "args": [str(_FIXTURE)]}}
    directory = tmp_path_factory.mktemp("conformance")
    with Gateway(directory, servers, open_with="observe-token", capabilities={"observe": tools}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def before_opencode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("conformance")
    servers = {"opencode": {"command": "opencode-mcp", "env": {"RELAY_REGISTRY_DIR": str(directory / "registry")}}}
    with Gateway(directory, servers, open_with="all-token") as gateway:
        yield gateway


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_gateway_conforms_but_for_what_its_baseline_explains(
    before_fixture: Gateway, revision: str, tmp_path: Path
) -> None:
    code, summary = run_conformance(f"{before_fixture.url}/mcp", revision, BASELINES / "fixture.yml", tmp_path)

    assert code == 0, summary


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_opencode_server_conforms_over_http_but_for_what_its_baseline_explains(
    before_opencode: Gateway, revision: str, tmp_path: Path
) -> None:
    code, summary = run_conformance(f"{before_opencode.url}/mcp", revision, BASELINES / "opencode.yml", tmp_path)

    assert code == 0, summary
