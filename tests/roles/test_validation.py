"""What is wrong with an inventory is said by the roles before anything is changed, with the thing and the remedy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.project.role_readmes import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
_PLAY: list[dict[str, Any]] = [
    {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        # The tasks alone: the role they belong to asks for a host with systemd.
        "vars_files": [str(PROJECT / "roles/relay_sshd/vars/main.yml")],
        "tasks": [{"ansible.builtin.import_tasks": str(PROJECT / "roles/relay_sshd/tasks/clients_validate.yml")}],
    }
]


def _key(number: int) -> str:
    return f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{number:043d} somebody@laptop"


def _clients(*names: object) -> list[dict[str, object]]:
    return [{"name": name, "key": _key(number)} for number, name in enumerate(names)]


def _enrolled(*names: str) -> dict[str, object]:
    return {"clients": [{"name": name} for name in names]}


CASES: Mapping[str, tuple[dict[str, object], str]] = {
    "begins": (
        {"relay_clients": _clients("lap-2", "lap")},
        (
            "The name lap-2 begins with lap, so that one could pose as the other. Leave lap as it is, run "
            "`opencode-connected enroll --name 2-lap` on lap-2,"
        ),
    ),
    "begins-in-another-case": ({"relay_clients": _clients("Lap", "lapTOP")}, "enroll --name TOP-Lap` on lapTOP,"),
    "begins-and-is-new": (
        {"relay_clients": _clients("lap", "lap-2"), "__relay_state": _enrolled("lap-2")},
        "Leave lap-2 as it is, run `opencode-connected enroll --name new-lap` on lap,",
    ),
    "begins-with-a-managed-one": (
        {"relay_clients": _clients("lap-2"), "relay_managed_clients": [{"name": "lap"}]},
        "The name lap-2 begins with lap",
    ),
    "twice": ({"relay_clients": _clients("lap", "LAP")}, "Two clients are called"),
    "no-name": ({"relay_clients": _clients("a b")}, "The client name 'a b' is not allowed"),
    "a-number": ({"relay_clients": _clients(7)}, "The client name '7' is not allowed"),
    "cut-key": ({"relay_clients": [{"name": "lap", "key": _key(1)[:60]}]}, "The key of client lap is damaged"),
    "other-key": (
        {"relay_clients": [{"name": "lap", "key": "ssh-dss AAAAB3NzaC1kc3MAAACBAOe"}]},
        "is damaged, or of a",
    ),
    "same-key": (
        {"relay_clients": [{"name": "one", "key": _key(1)}, {"name": "two", "key": f"{_key(1)[:93]} else"}]},
        "Clients one and two have the same key",
    ),
}
SOUND: Mapping[str, dict[str, object]] = {
    "nobody": {},
    "several": {
        "relay_clients": [
            *_clients("laptop-1", "laptop-2", "Studio_1"),
            {"name": "token", "key": f"sk-ssh-ed25519@openssh.com AAAA{'c' * 80}= x"},
        ],
        "relay_managed_clients": [{"name": "asleep"}],
    },
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run says to each inventory, all of them being hosts of one run: the refusal, or nothing."""
    directory = tmp_path_factory.mktemp("validation")
    hosts = {
        name: {"relay_managed_clients": [], **variables}
        for name, variables in ({name: case for name, (case, _) in CASES.items()} | dict(SOUND)).items()
    }
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    (directory / "play.yml").write_text(json.dumps(_PLAY), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_HOME": str(directory / "home"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [_PLAYBOOK, "--check", "-i", "hosts.json", "--forks", "4", "play.yml"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "PLAY RECAP" in done.stdout, done.stdout + done.stderr
    refusals = re.split(r"^(?:fatal|failed): \[", done.stdout.partition("PLAY RECAP")[0], flags=re.MULTILINE)[1:]
    return {
        **dict.fromkeys(hosts, ""),
        **{refusal.partition("]")[0]: " ".join(refusal.replace("\\n", " ").split()) for refusal in refusals},
    }


@pytest.mark.parametrize("case", CASES)
def test_clients_that_cannot_be_enrolled_are_refused_with_the_remedy(said: dict[str, str], case: str) -> None:
    assert CASES[case][1] in said[case]


@pytest.mark.parametrize("case", SOUND)
def test_clients_that_can_be_enrolled_are_not(said: dict[str, str], case: str) -> None:
    assert said[case] == ""
