"""The gateway's image as a service: no privileges, a read-only file system, one directory to write to."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from images.containers import container_name, docker
from support.chat.mcp_client import ToolClient
from support.chat.plain_http import NO_TLS
from support.fleet.registry import register, registration
from support.ports import free_port, is_open
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from images.containers import Image
    from support.chat.mcp_client import Era
    from support.opencodes.opencode import ServedOpenCode

STARTS = 60.0
"""Seconds: on a busy machine."""
STOP_SECONDS = 10
"""What the engine gives a container before it kills it."""


class GatewayContainer:
    """A running container of the gateway."""

    def __init__(self, image: Image, directory: Path, registry_dir: Path, uid: int) -> None:
        self.name = container_name()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings, self.data = directory / "settings", directory / "data"
        for made in (settings, self.data):
            made.mkdir(parents=True)
            os.chown(made, uid, -1)
        values = {"public_url": self.url, "listen": self.url.removeprefix("http://")}
        (settings / "gateway.json").write_text(json.dumps(values))
        self._mounts = (
            f"--volume={settings}:/etc/opencode-gateway:ro",
            f"--volume={self.data}:/var/lib/opencode-gateway",
            f"--volume={registry_dir}:/var/lib/opencode-relay:ro",
        )
        self._image, self._uid = image, uid

    def start(self) -> None:
        """Start it as the role does, with its own health check at shorter intervals."""
        docker(
            *("run", "--detach", f"--name={self.name}", "--network=host", f"--user={self._uid}:{self._uid}"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--health-interval=3s"),
            *("--health-start-period=0s", "--health-retries=100", *self._mounts, self._image.name),
        )

    def state(self, template: str) -> str:
        """Return a part of what the engine says about it."""
        return docker("inspect", "--format", template, self.name).stdout.strip()

    def until_healthy(self) -> None:
        """Wait until its own health check says so."""

        def healthy() -> bool:
            if self.state("{{.State.Running}}") != "true":
                raise RuntimeError(f"the gateway ended: {docker('logs', self.name).stderr[-2000:]}")
            return self.state("{{.State.Health.Status}}") == "healthy"

        eventually(healthy, "a healthy gateway", within=STARTS)

    def command(self, *words: str) -> str:
        """Run its command line in the running container and return what that prints."""
        return docker("exec", self.name, "opencode-gateway", *words).stdout.strip()

    @asynccontextmanager
    async def client(self, token: str, era: Era) -> AsyncIterator[ToolClient]:
        """Connect with a bearer token."""
        async with (
            httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {token}"}, timeout=60.0, trust_env=False, verify=NO_TLS
            ) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=era) as client,
        ):
            yield ToolClient(client)


@pytest.fixture(scope="module")
def module_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry directory of the gateway that the tests share."""
    return tmp_path_factory.mktemp("gateway") / "registry"


@pytest.fixture(scope="module")
def gateway(
    gateway_image: Image, tmp_path_factory: pytest.TempPathFactory, module_registry: Path, uid: int
) -> Iterator[GatewayContainer]:
    """A gateway that is up."""
    module_registry.mkdir()
    os.chown(module_registry, uid, -1)
    container = GatewayContainer(gateway_image, tmp_path_factory.mktemp("container"), module_registry, uid)
    try:
        container.start()
        container.until_healthy()
        yield container
    finally:
        docker("rm", "--force", container.name, check=False)


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_it_drives_a_registered_opencode_for_a_machine_with_a_token(
    gateway: GatewayContainer, module_registry: Path, opencode: ServedOpenCode, uid: int, era: Era
) -> None:
    os.chown(register(module_registry, registration("laptop", opencode.port, cwd=str(opencode.cwd))), uid, -1)
    token = gateway.command("tokens", "add", f"machine-{era}", "--capability", "observe", "--capability", "drive")
    async with gateway.client(token, era) as client:
        tools = await client.tools()
        assert {"instances", "inbox", "read", "send", "wait"} <= set(tools)
        assert "reply" not in tools
        answer = await client.call("send", instance="laptop", message="hello from a container", session="new")
    assert answer.structured["text"] == "echo: hello from a container"
    lines = [json.loads(line) for line in docker("logs", gateway.name).stdout.splitlines()]
    assert [line["tool"] for line in lines if line["tool"] == "send"]


def test_it_lets_nobody_in_without_a_token(gateway: GatewayContainer) -> None:
    answer = httpx.post(
        f"{gateway.url}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, trust_env=False, verify=NO_TLS
    )
    assert answer.status_code == 401
    assert "resource_metadata" in answer.headers["www-authenticate"]


def test_all_that_it_writes_lies_in_its_data_directory_and_is_its_own(gateway: GatewayContainer, uid: int) -> None:
    assert gateway.command("tokens", "add", "for-the-disk", "--capability", "observe")
    written = list(gateway.data.rglob("*"))
    assert "gateway.sqlite3" in {path.name for path in written}
    assert {path.stat().st_uid for path in written} == {uid}
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_stopped_by_the_engine_it_ends_in_time_and_in_order(
    gateway_image: Image, tmp_path: Path, registry_dir: Path, uid: int
) -> None:
    registry_dir.mkdir()
    container = GatewayContainer(gateway_image, tmp_path / "container", registry_dir, uid)
    try:
        container.start()
        eventually(lambda: is_open(container.port), "a gateway that listens", within=STARTS)
        docker("stop", f"--time={STOP_SECONDS}", container.name)
        # 137 would say that it had to be killed.
        assert container.state("{{.State.ExitCode}}") == "0"
    finally:
        docker("rm", "--force", container.name, check=False)


def test_without_its_configuration_it_says_in_one_line_what_is_missing(gateway_image: Image) -> None:
    done = docker("run", "--rm", "--network=none", "--read-only", gateway_image.name, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "opencode-gateway: /etc/opencode-gateway/gateway.json is missing: write it, or name another with --config\n"
    )
