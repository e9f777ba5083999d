"""Which OpenCode is on PATH: what it answers, what is remembered, and what cannot be driven."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from client.launched import Launched
from client.machine2 import machine_of
from opencode_connected.agents.generation import KnownGeneration, installed
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.opencode2 import Service2
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.scripted_model import ScriptedModel


@pytest.mark.parametrize(
    ("said", "version", "generation", "is_tested"),
    [
        ("1.18.33\n", "1.18.33", 1, True),
        ("1.1.65", "1.1.65", 1, False),
        ("opencode v2.0.15\n", "2.0.15", 2, True),
        ("opencode v2.3.2", "2.3.2", 2, False),
        ("opencode v3.0.0-beta.1", "3.0.0-beta.1", 2, False),
        ("local", "unknown", 1, False),
        ("0.0.0-dev-202611", "unknown", 1, False),
    ],
)
def test_a_version_tells_the_generation(said: str, version: str, generation: int, is_tested: bool) -> None:
    found = installed("opencode", said)
    assert (found.version, found.generation, found.is_tested) == (version, generation, is_tested)


@pytest.mark.parametrize("version", ["1.0.185", "0.15.31"])
def test_what_is_too_old_is_refused_in_one_line_that_names_its_version(
    machine: Machine, tmp_path: Path, version: str
) -> None:
    started = tmp_path / "started"
    program = tmp_path / "bin" / "opencode"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\ntouch {started}\n')
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    refused = machine.run("--headless", env=env)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert f"is OpenCode {version}, which cannot be driven from afar; 1.1 or later can: install" in refused.stderr
    (hop, *_) = json.loads(machine.run("doctor", "--json", env=env).stdout)["hops"]
    assert hop["status"] == "failed"
    assert version in hop["detail"]
    assert not started.exists()


def test_a_script_is_asked_every_time_as_it_may_start_another_program(tmp_path: Path) -> None:
    program = tmp_path / "opencode"
    environment = {"PATH": str(tmp_path)}
    asked = tmp_path / "asked"

    program.write_text(f"#!/bin/sh\necho >> {asked}\necho 1.18.33\n")
    program.chmod(0o755)
    state_dir = tmp_path / "state"
    assert KnownGeneration(state_dir).find(environment).version == "1.18.33"
    assert KnownGeneration(state_dir).find(environment).version == "1.18.33"
    assert asked.read_text() == "\n\n"


def test_the_real_program_is_asked_once(machine: Machine) -> None:
    environment = machine.environment()
    first = KnownGeneration(machine.state_dir).find(environment)
    facts = machine.state_dir / "opencode.json"
    known = json.loads(facts.read_text())
    assert known["version"] == first.version
    facts.write_text(json.dumps(known | {"version": "1.17.0"}))
    assert KnownGeneration(machine.state_dir).find(environment).version == "1.17.0", "its file has not changed"
    facts.write_text(json.dumps(known | {"version": "1.17.0", "stamp": [1]}))
    assert KnownGeneration(machine.state_dir).find(environment).version == first.version
    facts.write_text("[" * 10_000)
    assert KnownGeneration(machine.state_dir).find(environment).version == first.version


def test_after_an_upgrade_the_next_start_takes_the_new_one_and_says_that_sessions_were_copied(
    tmp_path: Path, model: ScriptedModel, opencode_bin: Path, opencode2_bin: Path
) -> None:
    upgraded = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode2_bin)
    program = upgraded.root / "bin" / "opencode"
    with Service2(upgraded, started=False) as service:
        machine = machine_of(OpenCodeHome(upgraded.root, model.base_url, binary=opencode_bin), tmp_path)
        with Launched(machine, "--headless") as old:
            assert old.registered()["generation"] == 1
            program.unlink()
            program.symlink_to(opencode2_bin.absolute())
            with Launched(machine, "--headless") as new:
                assert new.registered()["generation"] == 2
                assert "it has copied the sessions of OpenCode 1" in new.screen
                assert old.launcher().is_running()
                eventually(lambda: len(machine.registrations()) == 2, "both are there")
                with Launched(machine, "--headless") as third:
                    third.registered()
                    eventually(lambda: "another launcher's line" in third.screen, "it shares the line")
                    assert "copied" not in third.screen, "said once"
                assert service.runs()
