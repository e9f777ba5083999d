"""What both images are made of: layers, labels, user and size, and nothing of the machine that built them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
from packaging.requirements import Requirement
from webauthn.helpers import known_root_certs

from images.containers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.containers import Image

OWN = "opt/opencode-relay"
PACKAGES = (
    "opencode_common",
    "opencode_connected",
    "opencode_fleet",
    "opencode_gateway",
    "opencode_journal",
    "opencode_mcp",
    "opencode_notify",
    "opencode_pages",
    "opencode_relay",
)
MOST_BYTES = 80_000_000
SHORTEST_SECRET = 8


def test_its_own_layers_are_at_most_80_mb(image: Image) -> None:
    assert 10_000_000 < image.own_bytes <= MOST_BYTES


def test_its_labels_tell_what_it_is(image: Image, version: str) -> None:
    labels = image.configuration["Labels"]
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] in {"opencode-relay server", "opencode-relay gateway"}
    assert labels[f"{prefix}.description"]
    assert labels[f"{prefix}.licenses"] == "MIT"
    assert labels[f"{prefix}.version"] == version
    assert labels[f"{prefix}.revision"].removesuffix("-dirty") == revision.strip()


def test_it_runs_as_a_user_who_is_nobody_and_without_a_shell(image: Image) -> None:
    configuration = image.configuration
    assert configuration["User"] == "65532:65532"
    assert configuration["Entrypoint"][0].startswith(f"/{OWN}/bin/")
    commands = [configuration["Entrypoint"], configuration["Cmd"] or []]
    commands += [healthcheck["Test"]] if (healthcheck := configuration.get("Healthcheck")) else []
    assert not [word for command in commands for word in command if word in {"sh", "/bin/sh", "CMD-SHELL"}]


def test_nothing_in_it_belongs_to_its_user_or_can_be_changed_by_others(image: Image) -> None:
    _, entries = image.saved
    assert not [e.name for e in entries if e.uid or (e.mode & 0o022 and e.is_file) or e.mode & 0o6000]


def test_its_own_layers_hold_one_directory_with_what_git_knows_and_what_is_locked(image: Image) -> None:
    _, entries = image.saved
    files = {entry.name for entry in entries if entry.is_file}
    assert not {name for name in files if not name.startswith(f"{OWN}/")}
    ours = {
        found[1]
        for name in files
        if (found := re.search(rf"/site-packages/((?:{'|'.join(PACKAGES)})/.*)", name)) and "__pycache__" not in name
    }
    options = ("--cached", "--others", "--exclude-standard")
    known = subprocess.run(
        ["git", "ls-files", *options, "server", "client"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert ours == {name.split("/", 1)[1] for name in known if (ROOT / name).is_file()}
    installed = {
        found[1].lower().replace("_", "-")
        for name in files
        if (found := re.search(r"/site-packages/([^/]+)-[^-/]+\.dist-info/METADATA$", name))
    }
    locked = set(re.findall(r"^([a-z0-9-]+)==", requirements(image), re.MULTILINE))
    assert installed - {"opencode-relay"} <= locked
    assert "pip" not in installed


def test_no_layer_holds_a_secret_or_a_word_of_the_machine_that_built_it(image: Image) -> None:
    configuration, entries = image.saved
    told = str(configuration).encode()
    secrets = sorted(secrets_of_this_machine())
    assert secrets
    for secret in secrets:
        assert secret not in told, "in the configuration or the history"
        assert [entry.name for entry in entries if secret in entry.content] == []
    suspects = re.compile(
        r"(^|/)(\.env|\.git|\.netrc|pip\.conf|id_[a-z0-9]+|run/secrets/.*|[^/]*\.(pem|crt|key|sqlite3))$"
    )
    assert {e.name.rsplit("/", 2)[-2] for e in entries if e.is_file and suspects.search(e.name)} <= {"certifi"}


def secrets_of_this_machine() -> Iterator[bytes]:
    """Yield what a build could give away: where it ran, its settings, and whatever looks like a secret."""
    yield str(ROOT).encode() + b"/"
    if len(hostname := socket.gethostname()) >= SHORTEST_SECRET:
        yield hostname.encode()
    told = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|_INDEX_URL$|PROXY$", re.IGNORECASE)
    for name, value in os.environ.items():
        if told.search(name) and len(value) >= SHORTEST_SECRET:
            yield value.encode()
    # Certificates that this machine trusts and the public bundles do not.
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if bundle:
        yield from own_certificates(Path(bundle).read_bytes())


def own_certificates(bundle: bytes) -> Iterator[bytes]:
    """Yield the second line of each certificate of `bundle` that is not published with a library."""
    public = certifi.contents().encode() + Path(known_root_certs.__file__).read_bytes()
    for found in re.finditer(rb"-----BEGIN CERTIFICATE-----\n([^\n]+)\n([^\n]+)\n", bundle):
        if found[2] not in public:
            yield found[2]


def requirements(image: Image) -> str:
    """Return the locked requirements of an image."""
    name = image.name.split("/")[1].split(":")[0]
    return (ROOT / "images" / name / "requirements.txt").read_text()


def test_what_it_imports_has_its_bytecode_beside_it(image: Image) -> None:
    package = "opencode_gateway.service" if "gateway" in image.name else "opencode_mcp.server"
    script = (
        f"import os, sys, {package}\n"
        "cached = [str(getattr(module, '__cached__', '')) for module in sys.modules.values()]\n"
        "cached = [file for file in cached if '/site-packages/' in file]\n"
        "print(len(cached), *[file for file in cached if not os.path.exists(file)])"
    )
    imported, *without = image.run(f"/{OWN}/bin/python", "-c", script, options=("--read-only",)).stdout.split()
    assert int(imported) > 200
    # A few modules are imported or not as the surroundings are.
    assert len(without) < 5, without


@pytest.mark.parametrize("name", ["server", "gateway"])
def test_what_is_locked_is_what_the_project_asks_for(name: str) -> None:
    locked = dict(
        re.findall(
            r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "images" / name / "requirements.txt").read_text(), re.MULTILINE
        )
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["server"], *(extras["gateway"] if name == "gateway" else [])]
    for line in asked:
        wanted = Requirement(line)
        if wanted.name != "opencode-relay":
            assert wanted.specifier.contains(locked[wanted.name]), f"{line}: run images/lock.sh"
