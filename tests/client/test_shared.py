"""OpenCode 2 in the foreground: its own screen and service, and one line for all launchers of a user."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import psutil

from client.launched import LAUNCHER, Launched
from client.machine2 import directories, guard_of, told
from support.processes import has_ended
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.opencode2 import Service2

SHELL = ("/bin/bash", "--norc", "--noprofile", "-i")
SCREEN = "\x1b[?1049h"
STARTS = 90.0
"""Seconds in which the interface and its service come up on a machine that does much else."""


def registered(machine: Machine, name: str) -> bool:
    """Tell whether `name` is the one registration."""
    return list(machine.registrations()) == [name]


def is_back(shell: Launched) -> bool:
    """Tell whether the shell has said the launcher's exit code."""
    return re.search(r"code=\d", shell.screen) is not None


def name_of(launched: Launched) -> str:
    """Wait until the launcher knows what its directory is called."""
    return str(launched.registered()["name"])


def test_it_runs_on_the_persons_service_which_outlives_it(machine2: Machine, service: Service2) -> None:
    with Launched(machine2, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}; echo code=$?\n")
        name = name_of(shell)
        eventually(lambda: registered(machine2, name), "the registration", within=STARTS)
        (registration,) = machine2.registrations().values()
        assert registration["localPort"] == service.port
        assert registration["cwd"] == str(machine2.project)
        assert shell.opencode().cmdline()[1:] == [], "nothing is passed on that was not given"
        document = told(machine2)
        assert (document["guard"], document["generation"]) == (1, 2)
        assert document["version"] == service.record()["version"]
        assert sorted(document["rights"]) == ["approve", "drive", "observe"]
        assert document["directories"] == [{"path": str(machine2.project), "name": name, "opened": True}]
        with guard_of(machine2) as client:
            assert client.get("/global/health").json() == {"healthy": True, "version": document["version"]}
            assert client.post("/api/shell", json={"command": "id"}).status_code == 403

        eventually(lambda: SCREEN in shell.screen, "the interface is on the screen", within=STARTS)
        listed = machine2.run("status").stdout
        assert f"{name}  registered" in listed
        assert "from afar observe drive approve" in listed
        family = [shell.launcher(), shell.opencode(), shell.guardian()]
        shell.launcher().send_signal(signal.SIGTERM)
        eventually(lambda: is_back(shell), "the shell is back")
        assert all(has_ended(process) for process in family)
        assert list(machine2.registry_dir.iterdir()) == []
        assert machine2.states() == []
        shell.send("stty -a | grep -ow icanon; echo ready\n")
        eventually(lambda: "icanon\r\nready" in shell.screen, "the terminal is as it was")
    assert service.runs(), "the service is the person's"


def test_launchers_share_one_line_and_another_takes_it_over(machine2: Machine, service: Service2) -> None:
    other = machine2.home.root / "work" / "project"
    other.mkdir(parents=True)
    with Launched(machine2) as first:
        name = name_of(first)
        eventually(lambda: registered(machine2, name), "the registration", within=STARTS)
        with Launched(machine2, cwd=other, env={"PWD": str(other)}) as second:
            other_name = name_of(second)
            assert other_name == f"{name}-2", "two directories of one name are told apart"
            wanted = {str(machine2.project): name, str(other): other_name}
            eventually(lambda: directories(machine2) == wanted, "the guard tells both")
            assert registered(machine2, name), "there is one line"
            shown = json.loads(machine2.run("status", "--json").stdout)["instances"]
            assert {(i["name"], i["state"], i["holds_line"]) for i in shown} == {
                (name, "registered", True),
                (other_name, "registered", False),
            }
            serving = psutil.Process(service.pid)

            first.launcher().kill()
            eventually(lambda: registered(machine2, other_name), "the other one holds the line", within=STARTS)
            eventually(lambda: directories(machine2) == {str(other): other_name}, "it alone is there")
            assert serving.is_running()


def test_two_launchers_in_one_directory_are_one_instance(machine2: Machine) -> None:
    with Launched(machine2) as first:
        name = name_of(first)
        eventually(lambda: registered(machine2, name), "the registration", within=STARTS)
        with Launched(machine2) as second:
            assert name_of(second) == name
            assert directories(machine2) == {str(machine2.project): name}
            first.launcher().send_signal(signal.SIGTERM)
            first.ended()
            pid = second.launcher().pid

            def is_taken_over() -> bool:
                states = [state for state in machine2.states() if state["launcher_pid"] == pid]
                return registered(machine2, name) and bool(states) and states[0]["holds_line"]

            eventually(is_taken_over, "the other one holds the line", within=STARTS)


def test_an_explicit_name_of_another_directory_is_refused_before_anything_starts(
    machine2: Machine, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Launched(machine2, env={"INSTANCE_NAME": "mine"}) as first:
        assert name_of(first) == "mine"
        command = [LAUNCHER, "--headless"]
        environment = machine2.environment({"INSTANCE_NAME": "mine", "PWD": str(other)})
        refused = subprocess.run(
            command, cwd=other, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode == 5
        assert "the name 'mine' is held by the launcher of process" in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_turns_that_go_on_are_said_when_the_last_launcher_ends(machine2: Machine, service: Service2) -> None:
    with Launched(machine2, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}; echo code=$?\n")
        name = name_of(shell)
        eventually(lambda: registered(machine2, name), "the registration", within=STARTS)
        eventually(lambda: SCREEN in shell.screen, "the interface is on the screen", within=STARTS)
        with guard_of(machine2) as client:
            body = {"location": {"directory": str(machine2.project)}}
            session = client.post("/api/session", json=body).raise_for_status().json()["data"]["id"]
            prompt = {"text": "SLOW:2000:0.2"}
            client.post(f"/api/session/{session}/prompt", json=prompt).raise_for_status()
        shell.launcher().send_signal(signal.SIGTERM)
        eventually(lambda: is_back(shell), "the shell is back")
        assert "1 turn goes on; opencode-connected --headless keeps this machine reachable" in shell.screen
    with service.client() as client:
        assert session in client.get("/api/session/active").json()["data"]


def test_a_password_of_the_persons_is_what_the_guard_asks_for(machine2: Machine, service: Service2) -> None:
    with Launched(machine2, env={"OPENCODE_PASSWORD": "correct horse"}) as launched:
        name = name_of(launched)
        eventually(lambda: registered(machine2, name), "the registration", within=STARTS)
        assert not (machine2.registry_dir / f".{name}.key").exists()
        with guard_of(machine2, auth=("opencode", "correct horse")) as client:
            assert client.get("/opencode-relay/guard").status_code == 200
        with guard_of(machine2, auth=("opencode", "wrong")) as client:
            assert client.get("/opencode-relay/guard").status_code == 401
        secret = service.record()["password"]
        assert all(secret not in str(process.cmdline()) for process in launched.family())
        logs = [path.read_text() for path in machine2.state_dir.glob("log/*")]
        assert logs
        assert all(word not in text for text in logs for word in (secret, "correct horse"))


def test_what_would_lead_past_the_service_is_refused(machine2: Machine) -> None:
    for arguments, said in (
        (["--", "--standalone"], "--standalone cannot be passed on"),
        (["--", "--server=http://x"], "--server cannot be passed on"),
        (["--", "serve"], "a second server beside OpenCode's service"),
        (["--headless", "--", "-c"], "starts nothing that arguments could go to"),
    ):
        ran = machine2.run(*arguments)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
        assert said in ran.stderr
