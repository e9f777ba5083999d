"""Talking to the engine: its command line, as people use it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_PREFIX = "opencode-relay-test-"


def docker(*arguments: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the command `docker` and return what came of it; `timeout` in seconds."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done


def container_name() -> str:
    """Return a name that no container has."""
    return f"{_PREFIX}{uuid.uuid4().hex[:12]}"


def exists(container: str) -> bool:
    """Tell whether there is a container of that name, running or not."""
    return bool(docker("ps", "--all", "--quiet", "--filter", f"name=^{container}$").stdout)


def containers_of(image: str, registry_dir: Path) -> list[str]:
    """Return the ids of the containers of `image` that were started on `registry_dir`."""
    return docker(
        "ps", "--all", "--quiet", "--filter", f"ancestor={image}", "--filter", f"volume={registry_dir}"
    ).stdout.split()


@dataclass(frozen=True)
class Entry:
    """Something in a layer."""

    name: str
    mode: int
    uid: int
    is_file: bool
    content: bytes


class Image:
    """An image that the engine has."""

    def __init__(self, name: str, base: str) -> None:
        self.name = name
        self._base = base

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `docker image inspect` says."""
        return _inspect(self.name)

    @property
    def configuration(self) -> dict[str, Any]:
        """How containers of it are run."""
        configuration: dict[str, Any] = self.facts["Config"]
        return configuration

    @property
    def own_bytes(self) -> int:
        """The size of the layers that it adds to its base, unpacked."""
        return int(self.facts["Size"]) - int(_inspect(self._base)["Size"])

    @cached_property
    def saved(self) -> tuple[dict[str, Any], list[Entry]]:
        """Its configuration with the history as it is handed on, and all that is in its own layers."""
        below = len(_inspect(self._base)["RootFS"]["Layers"])
        archive = subprocess.run(["docker", "save", self.name], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as image:
            (manifest,) = json.loads(_read(image, "manifest.json"))
            configuration = json.loads(_read(image, manifest["Config"]))
            assert configuration["rootfs"]["diff_ids"][:below] == _inspect(self._base)["RootFS"]["Layers"]
            entries = [entry for name in manifest["Layers"][below:] for entry in _entries(_read(image, name))]
        return configuration, entries

    def run(
        self, *command: str, options: tuple[str, ...] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a container of it to its end; the first word of `command` takes the entry point's place."""
        return docker(
            *("run", "--rm", "--network=none", *options, "--entrypoint", command[0], self.name, *command[1:]),
            check=check,
        )


def base_image() -> str:
    """Return the name of the base that the images were built on."""
    if named := os.environ.get("BASE_IMAGE"):
        return named
    done = subprocess.run([ROOT / "images" / "base.sh", "python"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _inspect(name: str) -> dict[str, Any]:
    (facts,) = json.loads(docker("image", "inspect", name).stdout)
    return dict(facts)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()


def _entries(layer: bytes) -> Iterator[Entry]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        for member in files:
            content = _read(files, member.name) if member.isfile() else b""
            yield Entry(member.name, member.mode, member.uid, member.isfile(), content)
