"""OpenCode's interface in the foreground terminal, as if the launcher were not there."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import psutil
import pytest

from client.launched import LAUNCHER, Launched
from support.ports import is_open
from support.processes import has_ended
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.launched import Machine

SCHEMA = json.loads((Path(__file__).parents[1] / "contract" / "registration.schema.json").read_text())
SHELL = ("/bin/bash", "--norc", "--noprofile", "-i")


def again_until_stopped(do: Callable[[], object], process: psutil.Process) -> None:
    """Do something until `process` stops of it, not more often than every half second."""
    last = 0.0

    def stopped() -> bool:
        nonlocal last
        if process.status() != psutil.STATUS_STOPPED and time.monotonic() - last > 0.5:
            last = time.monotonic()
            do()
        return process.status() == psutil.STATUS_STOPPED

    eventually(stopped, "the process stops")


def test_an_instance_is_registered_while_it_runs_and_ends_with_the_shell_back_in_order(machine: Machine) -> None:
    with Launched(machine, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}; echo code=$?\n")
        state = shell.registered()
        (registration,) = machine.registrations().values()
        jsonschema.validate(registration, SCHEMA)
        assert registration["cwd"] == str(machine.project)
        assert registration["localPort"] == state["local_port"] != registration["port"] == state["port"]
        for process, port in ((shell.opencode(), "localPort"), (shell.launcher(), "port")):
            assert 4096 <= registration[port] <= 5095
            (listener,) = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            assert listener.laddr == ("127.0.0.1", registration[port])
        for file in (f"{registration['name']}.json", f".{registration['name']}.key"):
            assert (machine.registry_dir / file).stat().st_mode & 0o777 == 0o600

        launcher, opencode, guardian = shell.launcher(), shell.opencode(), shell.guardian()
        # Before it draws, OpenCode does not handle the signal yet, and dies of it.
        eventually(lambda: "\x1b[?1049h" in shell.screen, "the interface is on the screen")
        launcher.send_signal(signal.SIGTERM)
        eventually(lambda: "code=0" in shell.screen, "the shell is back with OpenCode's exit code")
        assert "`opencode-connected -- -s SESSION`" in shell.screen, (
            "OpenCode's own last words lead past the launcher"
        )
        assert machine.registrations() == {}
        assert list(machine.registry_dir.iterdir()) == []
        assert machine.states() == []
        assert all(has_ended(process) for process in (launcher, opencode, guardian))
        shell.send("stty -a | grep -ow icanon; stty -a | grep -ow echo; echo ready\n")
        eventually(lambda: "icanon\r\necho\r\nready" in shell.screen, "the terminal is as it was")


def test_job_control_stops_and_continues_the_launcher_and_opencode_as_one_job(machine: Machine) -> None:
    with Launched(machine, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}\n")
        shell.registered()
        launcher, opencode = shell.launcher(), shell.opencode()

        # The interface ignores keys until it has drawn itself.
        again_until_stopped(lambda: shell.send("\x1a"), launcher)
        assert eventually(lambda: opencode.status() == psutil.STATUS_STOPPED, "Ctrl-Z stops OpenCode")
        shell.send("echo in-the-$((1+1))-shell\n")
        eventually(lambda: "in-the-2-shell" in shell.screen, "the shell has the terminal")
        shell.send("fg\n")
        eventually(lambda: opencode.status() != psutil.STATUS_STOPPED, "fg continues OpenCode")
        eventually(lambda: launcher.status() != psutil.STATUS_STOPPED, "fg continues the launcher")

        # The launcher may still be passing on the continuation from before.
        again_until_stopped(opencode.suspend, launcher)
        shell.send("fg\n")
        eventually(lambda: opencode.status() != psutil.STATUS_STOPPED, "fg continues an OpenCode that stopped alone")


def test_the_interface_has_the_size_of_the_terminal_and_follows_it(machine: Machine) -> None:
    with Launched(machine) as launched:
        launched.registered()
        before = len(launched.screen)
        launched.terminal.setwinsize(25, 61)
        eventually(lambda: "\x1b[25;" in launched.screen[before:], "it draws for 25 lines")


def test_continuing_the_launcher_continues_an_opencode_that_was_stopped(machine: Machine) -> None:
    with Launched(machine) as launched:
        launcher, opencode = launched.launcher(), launched.opencode()
        opencode.suspend()
        eventually(lambda: opencode.status() == psutil.STATUS_STOPPED, "OpenCode stops")
        launcher.resume()
        eventually(lambda: opencode.status() != psutil.STATUS_STOPPED, "OpenCode goes on")


def test_a_closed_terminal_ends_everything(machine: Machine) -> None:
    with Launched(machine, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}\n")
        shell.registered()
        family = [shell.launcher(), shell.opencode(), shell.guardian()]
        shell.hang_up()
        eventually(lambda: all(has_ended(process) for process in family), "launcher, OpenCode and guardian end")
        assert machine.registrations() == {}
        assert machine.states() == []


def test_kill_9_of_the_launcher_leaves_nothing_behind(machine: Machine) -> None:
    with Launched(machine, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}\n")
        state = shell.registered()
        opencode, guardian = shell.opencode(), shell.guardian()
        assert guardian.terminal() is None
        shell.launcher().kill()
        eventually(lambda: not machine.registrations(), "the registration goes")
        eventually(lambda: has_ended(opencode) and has_ended(guardian), "OpenCode and the guardian end")
        eventually(lambda: not is_open(state["local_port"]), "nobody listens any more")
        assert "dead" in machine.run("status").stdout
        assert machine.run("cleanup").returncode == 0
        assert machine.states() == []


def test_an_opencode_that_is_killed_gives_the_launcher_its_end_and_the_terminal_its_order_back(
    machine: Machine,
) -> None:
    with Launched(machine, program=SHELL) as shell:
        shell.send(f"{LAUNCHER}; echo code=$?\n")
        shell.registered()
        shell.opencode().kill()
        eventually(lambda: "code=137" in shell.screen, "128 and the signal's number")
        assert machine.registrations() == {}
        assert "\x1b[?1049l" in shell.screen
        shell.send("stty -a | grep -ow icanon; echo ready\n")
        eventually(lambda: "icanon\r\nready" in shell.screen, "the terminal is as it was")


def test_the_exit_code_is_opencodes_own(machine: Machine) -> None:
    with Launched(machine, "--", "--log-level", "NONSENSE") as launched:
        assert launched.ended() == 1
        assert "replay-limit" in launched.screen, "OpenCode's own usage"


def test_a_port_that_another_program_takes_first_is_left_to_it(machine: Machine, tmp_path: Path) -> None:
    rival = tmp_path / "bin" / "opencode"
    rival.parent.mkdir()
    marker = tmp_path / "rival-port"
    # Takes the first port before the real OpenCode, which then shows a blank screen and never listens.
    rival.write_text(
        "#!/bin/bash\n"
        f"if [ $1 = --port ] && [ ! -e {marker} ]; then\n"
        f"  (setsid python3 -m http.server --bind 127.0.0.1 $2 >/dev/null 2>&1 & echo $! $2 > {marker})\n"
        "  until (: </dev/tcp/127.0.0.1/$2) 2>/dev/null; do sleep 0.05; done\n"
        "fi\n"
        f'exec "{machine.home.binary}" "$@"\n'
    )
    rival.chmod(0o755)
    path = f"{rival.parent}{os.pathsep}{machine.environment()['PATH']}"
    with Launched(machine, env={"PATH": path}) as launched:
        eventually(lambda: marker.exists() and marker.read_text().endswith("\n"), "the rival")
        rival_pid, taken = map(int, marker.read_text().split())
        try:
            state = launched.registered()
        finally:
            os.kill(rival_pid, signal.SIGKILL)
        assert state["local_port"] != taken
        assert is_open(state["local_port"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_alone_ends_opencode_too(machine: Machine, number: signal.Signals) -> None:
    with Launched(machine) as launched:
        opencode = launched.opencode()
        launched.launcher().send_signal(number)
        launched.ended()
        assert has_ended(opencode)
        assert machine.states() == []
