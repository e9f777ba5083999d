"""Builds all that a release consists of, from what is committed and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.release import sbom
from support.release.notes import is_released, notes
from support.release.project import ROOT, NotReady, version

if TYPE_CHECKING:
    from collections.abc import Sequence

TOOLS: Final = ROOT / ".work" / "tools" / "bin"
"""Programs of the dependency group `release`, which are in an environment of their own."""
IMAGES: Final = ("server", "gateway")
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_EMULATORS: Final = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}


class Release:
    """One release, built into a directory.

    Args:
        dist: where it goes; emptied first.
        tag: the tag that is being released, `v` and the version; empty for a rehearsal.
    """

    def __init__(self, dist: Path, tag: str = "") -> None:
        self._dist = dist
        self._version = version()
        self._changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        if _output("git", "status", "--porcelain"):
            raise NotReady("Not all is committed, and a release holds what is: commit it, or `git stash -u`.")
        if tag and tag != f"v{self._version}":
            raise NotReady(f"The tag {tag} is not v{self._version}, which pyproject.toml has.")
        if tag and not is_released(self._changelog, self._version):
            raise NotReady(
                f"CHANGELOG.md has nothing of {self._version}: run `make prepare-release TO={self._version}`."
            )
        # What is built twice from one commit is the same, as far as the tools allow it.
        self._environment = os.environ | {"SOURCE_DATE_EPOCH": _output("git", "log", "-1", "--format=%ct")}

    def build(self, work: Path, *, images: bool) -> None:
        """Build everything; `work` is an empty directory for what is only needed meanwhile."""
        shutil.rmtree(self._dist, ignore_errors=True)
        self._dist.mkdir(parents=True)
        source = work / "source"
        # Not the working tree: that has ignored files too, as an inventory with addresses.
        archive = work / "source.tar"
        self._run("git", "archive", "--output", archive, "HEAD")
        with tarfile.open(archive) as committed:
            committed.extractall(source, filter="data")
        self._python(source)
        self._collection(source, work)
        if images:
            for image in IMAGES:
                self._image(image)
        (self._dist / "RELEASE_NOTES.md").write_text(notes(self._changelog, self._version), encoding="utf-8")
        (self._dist / "SHA256SUMS").write_text(sums(self._dist), encoding="utf-8")

    def _python(self, source: Path) -> None:
        # Without isolation: the build system is what pyproject.toml names, installed with the development tools.
        self._run(sys.executable, "-m", "build", "--no-isolation", "--outdir", self._dist, source)
        self._run(TOOLS / "twine", "check", "--strict", *self._dist.iterdir())

    def _collection(self, source: Path, work: Path) -> None:
        galaxy = Path(sys.executable).parent / "ansible-galaxy"
        self._run(galaxy, "collection", "build", "--output-path", self._dist, source)
        (archive,) = self._dist.glob("opencode-relay-*.tar.gz")
        settings = work / "galaxy-importer.cfg"
        settings.write_text("[galaxy-importer]\nRUN_ANSIBLE_DOC = True\nRUN_ANSIBLE_LINT = True\n", encoding="utf-8")
        # It looks for its programs on PATH, and writes its result where it runs.
        environment = {
            "GALAXY_IMPORTER_CONFIG": str(settings),
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
            "ANSIBLE_HOME": str(work / "ansible"),
        }
        self._run(TOOLS / "python", "-m", "galaxy_importer.main", archive, cwd=work, environment=environment)

    def _image(self, image: str) -> None:
        bill = sbom.of_python(
            TOOLS / "cyclonedx-py", ROOT / "images" / image / "requirements.txt", ROOT / "pyproject.toml"
        )
        for machine in _machines():
            name = f"opencode-relay/{image}:{self._version}"
            foreign = {} if machine == _own_machine() else {"PLATFORM": f"linux/{machine}"}
            self._run("images/build.sh", image, environment=foreign)
            tagged = f"{name}-{machine}" if foreign else name
            stem = self._dist / f"opencode-relay-{image}-{self._version}-{machine}"
            with gzip.GzipFile(f"{stem}.tar.gz", "wb", mtime=0) as packed:
                saved = subprocess.Popen(["docker", "save", tagged], stdout=subprocess.PIPE)
                assert saved.stdout is not None
                shutil.copyfileobj(saved.stdout, packed)
                if saved.wait() != 0:
                    raise NotReady(f"docker save {tagged} failed.")
            listed = _output(
                "docker", "run", "--rm", "--network", "none", "--entrypoint", sbom.QUERY[0], tagged, *sbom.QUERY[1:]
            )
            whole = bill | {"components": [*bill["components"], *sbom.of_debian(listed)]}
            Path(f"{stem}.cdx.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")

    def _run(self, *command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> None:
        subprocess.run(command, cwd=cwd, env=self._environment | (environment or {}), check=True)


def sums(directory: Path) -> str:
    """Return the lines of SHA256SUMS, which `sha256sum --check` reads, for all files of a directory."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _own_machine() -> str:
    return _MACHINES[platform.machine()]


def _machines() -> Sequence[str]:
    """Return what the engine builds for: this machine's processor, and others that the kernel emulates."""
    own = _own_machine()
    others = sorted(set(_EMULATORS) - {own})
    able = [machine for machine in others if Path("/proc/sys/fs/binfmt_misc", _EMULATORS[machine]).exists()]
    for machine in sorted(set(others) - set(able)):
        print(f"Left out: images for {machine}. Build them on such a machine, or install qemu-user-static first.")
    return [own, *able]


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
