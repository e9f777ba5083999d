"""Instances that are opened from afar on a machine whose launcher runs without a screen, as a service does."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from client.launched import Launched
from client.machine2 import directories, guard_of
from support.waiting import eventually

if TYPE_CHECKING:
    from client.launched import Machine

CLOSE_SCHEMA = Path(__file__).parent / "golden" / "close.schema.json"
STARTS = 90.0


def ask(machine: Machine, verb: str, directory: str) -> dict[str, Any]:
    """Have the guard open or close a directory."""
    with guard_of(machine) as client:
        answer = client.post(f"/opencode-relay/{verb}", json={"directory": directory})
        told: dict[str, Any] = answer.raise_for_status().json()
        return told


def allow(machine: Machine, work: Path) -> None:
    """Let be opened below `work`, and nothing be worked in besides."""
    config = machine.config_home / "opencode-relay" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'open_below = ["~/{work.name}"]\ndirectories = ["~/nothing"]\n')


def is_up(machine: Machine, launched: Launched) -> bool:
    launched.registered()
    return bool(machine.registrations())


def test_what_is_opened_from_afar_stays_until_it_is_closed(machine2: Machine) -> None:
    home = machine2.home.root
    work = home / "work"
    api = str(work / "api")
    (work / "api").mkdir(parents=True)
    allow(machine2, work)
    with Launched(machine2, "--headless") as service:
        eventually(lambda: is_up(machine2, service), "the registration", within=STARTS)
        before = directories(machine2)
        opened = ask(machine2, "open", "~/work/api")
        assert (opened["directory"], opened["opened"]) == (api, True)
        assert directories(machine2) == {**before, api: opened["name"]}
        with guard_of(machine2) as client:
            body = {"location": {"directory": api}, "title": "Fix the login"}
            session = client.post("/api/session", json=body).raise_for_status().json()["data"]["id"]
        listed = machine2.run("sessions").stdout
        assert f"{opened['name']}  {api}" in listed
        assert f"{session}  Fix the login" in listed
        said = machine2.run("status").stdout
        assert f"may open  below {work}" in said
        assert f"opened    {opened['name']}, {api}, from afar" in said

        service.launcher().send_signal(signal.SIGTERM)
        service.ended()
    with Launched(machine2, "--headless") as service:
        eventually(lambda: is_up(machine2, service), "the registration", within=STARTS)
        assert directories(machine2) == {**before, api: opened["name"]}, "it is open after a restart"
        with Launched(machine2, cwd=work / "api", env={"PWD": api}) as screen:
            assert screen.registered()["name"] == opened["name"], "a screen there is the same instance"
            closed = machine2.run("close", opened["name"], "--json")
            told = json.loads(closed.stdout)
            jsonschema.validate(told, json.loads(CLOSE_SCHEMA.read_text()))
            assert [each["directory"] for each in told["closed"]] == [api]
            assert directories(machine2) == {**before, api: opened["name"]}, "the screen's own stays"
            screen.launcher().send_signal(signal.SIGTERM)
            screen.ended()
        eventually(lambda: directories(machine2) == before, "it is gone with the screen", within=STARTS)
        again = machine2.run("close", opened["name"])
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert "nothing was" in again.stderr
