"""The images as `make images` has built them, and what their containers are run with. They need an engine."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

import pytest

from images.containers import ROOT, Image, base_image, containers_of, docker
from images.documented import Documented
from images.others import install_others
from support.fleet.registry import register, registration
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images.others import Others
    from support.opencodes.opencode import ServedOpenCode

_UNUSED_UID = 64123
"""No account of the machine, and none of the image."""


@pytest.fixture(scope="session")
def version() -> str:
    """The project's version, which is also the images' tag."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


@pytest.fixture(scope="session")
def base() -> str:
    """The image that ours stand on."""
    return base_image()


@pytest.fixture(scope="session")
def server_image(version: str, base: str) -> Image:
    """The server's."""
    return Image(f"opencode-relay/server:{version}", base)


@pytest.fixture(scope="session")
def gateway_image(version: str, base: str) -> Image:
    """The gateway's."""
    return Image(f"opencode-relay/gateway:{version}", base)


@pytest.fixture(params=["server", "gateway"])
def image(request: pytest.FixtureRequest) -> Image:
    """Each of them."""
    found: Image = request.getfixturevalue(f"{request.param}_image")
    return found


@pytest.fixture(scope="session")
def uid() -> int:
    """Who containers run as: nobody known, where we may hand files over to him."""
    return os.getuid() or _UNUSED_UID


@pytest.fixture
def laptop(opencode: ServedOpenCode, registry_dir: Path, uid: int) -> ServedOpenCode:
    """The shared OpenCode, registered as `laptop` where `uid` alone can read it."""
    file = register(registry_dir, registration("laptop", opencode.port, cwd=str(opencode.cwd)))
    for path in (file, registry_dir):
        os.chown(path, uid, -1)
    return opencode


@pytest.fixture
def documented(laptop: ServedOpenCode, registry_dir: Path, uid: int, server_image: Image) -> Iterator[Documented]:
    """What docs/gateways.md says, for `laptop`; whatever a test starts by it has to be gone soon after it."""
    del laptop
    yield Documented(f"{uid}:{uid}", registry_dir, server_image.name)
    try:
        eventually(lambda: not containers_of(server_image.name, registry_dir), "its containers are gone")
    finally:
        for container in containers_of(server_image.name, registry_dir):
            docker("rm", "--force", container, check=False)


@pytest.fixture(scope="session")
def others() -> Others:
    """Launchers and gateways of other people."""
    return install_others()
