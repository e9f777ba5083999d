"""What ssh says is what the table expects: held against the real one wherever a failure can be made."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client.line.conftest import line_settings, make_key
from opencode_connected.line.connection import LineConnection
from opencode_connected.line.errors import Hop, LineError
from opencode_connected.line.inquiry import query
from opencode_connected.line.ssh_errors import allocated_port, diagnose, is_forward_failure
from support.line.sshd import Sshd, unix_user
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth


async def failure(settings: LineSettings, *, forward: int | None = None) -> LineError:
    """Connect, and return why that failed."""
    async with LineConnection(settings, forward=forward) as connection:
        with pytest.raises(LineError) as error:
            await connection.open()
    assert "\n" not in str(error.value)
    return error.value


def check(error: LineError, hop: Hop, says: str, remedy: str, *, permanent: bool) -> None:
    assert says in str(error)
    assert remedy in error.remedy
    assert (error.hop, error.permanent) == (hop, permanent)


def locked_copy(key: Path, path: Path) -> Path:
    """Copy a key, and give it a passphrase."""
    shutil.copy(key, path)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(path)], check=True)
    return path


def with_key(settings: LineSettings, relay: Sshd, key: Path) -> LineSettings:
    """Put another key in the place of the right one."""
    words = [str(key) if word == str(relay.client_key) else word for word in shlex.split(settings.ssh_command)]
    assert str(key) in words
    return replace(settings, ssh_command=shlex.join(words))


def with_option(settings: LineSettings, option: str) -> LineSettings:
    """Put an option in front, where it beats the later ones."""
    return replace(settings, ssh_command=settings.ssh_command.replace("ssh", f"ssh {option}", 1))


async def test_a_program_that_is_not_there(settings: LineSettings) -> None:
    command = replace(settings, ssh_command="no-such-program vm", command_name="relay_ssh_cmd in config.toml")
    error = await failure(command)

    remedy = "relay_ssh_cmd in config.toml must begin with an installed program"
    check(error, "command", "no-such-program cannot be started: No such file", remedy, permanent=True)


@pytest.mark.parametrize(("command", "says"), [("ssh 'vm", "No closing quotation"), ("  ", "is empty")])
async def test_a_command_that_is_none(settings: LineSettings, command: str, says: str) -> None:
    check(await failure(replace(settings, ssh_command=command)), "command", says, "ssh", permanent=True)


async def test_an_option_that_ssh_does_not_know(settings: LineSettings) -> None:
    error = await failure(with_option(settings, "-o FancyOption=yes"))

    check(error, "command", "does not know the option fancyoption", "~/.ssh/config", permanent=True)


async def test_a_command_line_that_ssh_does_not_understand(settings: LineSettings) -> None:
    error = await failure(replace(settings, ssh_command="ssh"))

    check(error, "command", "does not understand the command line", "ssh user@relay", permanent=True)


async def test_a_name_that_cannot_be_resolved(settings: LineSettings) -> None:
    error = await failure(replace(settings, ssh_command="ssh -F none relay.invalid"))

    check(error, "network", "relay.invalid cannot be resolved", "network", permanent=False)


async def test_a_port_where_nothing_listens(settings: LineSettings) -> None:
    port = free_port()
    error = await failure(replace(settings, ssh_command=f"ssh -F none -p {port} 127.0.0.1"))

    check(error, "network", f"127.0.0.1 refuses connections on port {port}", "sshd runs", permanent=False)


async def test_a_host_that_accepts_and_says_nothing(settings: LineSettings) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        error = await failure(replace(settings, ssh_command=f"ssh -F none -o ConnectTimeout=1 -p {port} 127.0.0.1"))

    check(error, "network", "does not answer", "firewall", permanent=False)


async def test_a_host_that_hangs_up(settings: LineSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        port = rude.getsockname()[1]
        # `false` takes the connection's place: it ends before a banner could come.
        command = f"ssh -F none -o 'ProxyCommand=false' -p {port} 127.0.0.1"
        error = await failure(replace(settings, ssh_command=command))

    check(error, "network", "closed the connection before the log-in", "overloaded", permanent=False)


async def test_a_host_without_a_route(settings: LineSettings) -> None:
    error = await failure(replace(settings, ssh_command="ssh -F none -b 127.0.0.1 192.0.2.1"))

    check(error, "network", "192.0.2.1 cannot be reached", "network", permanent=False)


async def test_an_unknown_host_key(settings: LineSettings, tmp_path: Path) -> None:
    for strict in ("yes", "ask"):
        error = await failure(
            with_option(settings, f"-o StrictHostKeyChecking={strict} -o UserKnownHostsFile={tmp_path}/none")
        )
        check(error, "host-key", "does not know the relay's host key", "fingerprint", permanent=True)


async def test_a_changed_host_key(settings: LineSettings, relay: Sshd, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    other = make_key(tmp_path / "other").with_suffix(".pub")
    known_hosts.write_text(f"[127.0.0.1]:{relay.port} {other.read_text()}")

    error = await failure(with_option(settings, f"-o UserKnownHostsFile={known_hosts}"))

    check(error, "host-key", "is not the one that this machine knows", "ssh-keygen -R", permanent=True)


async def test_a_wrong_key(settings: LineSettings, relay: Sshd, tmp_path: Path) -> None:
    error = await failure(with_key(settings, relay, make_key(tmp_path / "wrong")))

    check(error, "authentication", "refuses the key (publickey)", "ssh-add", permanent=True)


async def test_a_key_with_a_passphrase_that_nobody_can_type(
    settings: LineSettings, relay: Sshd, tmp_path: Path
) -> None:
    error = await failure(with_key(settings, relay, locked_copy(relay.client_key, tmp_path / "locked")))

    check(error, "authentication", "refuses the key", "passphrase must be in the agent", permanent=True)


async def test_a_key_file_that_others_may_read(settings: LineSettings, relay: Sshd, tmp_path: Path) -> None:
    public = tmp_path / "public"
    shutil.copy(relay.client_key, public)
    public.chmod(0o644)

    error = await failure(with_key(settings, relay, public))

    check(error, "authentication", "others may read its file", "chmod 600", permanent=True)


async def test_no_algorithm_in_common(settings: LineSettings) -> None:
    error = await failure(with_option(settings, "-o HostKeyAlgorithms=ssh-rsa"))

    check(error, "network", "no matching host key type", "update", permanent=True)


async def test_a_relay_that_forwards_nothing(tmp_path: Path, opencode: FakeHealth, registry_dir: Path) -> None:
    with Sshd(tmp_path / "relay", options=("AllowTcpForwarding no",)) as relay:
        error = await failure(line_settings(relay, opencode, registry_dir), forward=0)

    check(error, "forward", "does not listen for us", "AllowTcpForwarding", permanent=True)


async def test_an_account_without_a_shell(tmp_path: Path, opencode: FakeHealth, registry_dir: Path) -> None:
    with unix_user("nologin") as user, Sshd(tmp_path / "relay", user=user) as relay:
        error = await failure(line_settings(relay, opencode, registry_dir))

    check(error, "relay", "has no shell", "account", permanent=True)


async def test_a_forced_command_that_is_something_else(
    tmp_path: Path, opencode: FakeHealth, registry_dir: Path
) -> None:
    with Sshd(tmp_path / "relay", options=("ForceCommand echo menu only >&2; exit 7",)) as relay:
        error = await failure(line_settings(relay, opencode, registry_dir))

    says = "ends the session with status 7 before our command: menu only"
    check(error, "account", says, "no forced command", permanent=False)


async def test_a_registry_directory_that_is_not_safe(settings: LineSettings, registry_dir: Path) -> None:
    registry_dir.symlink_to("/tmp")  # it is not followed

    with pytest.raises(LineError, match="is a symbolic link") as error:
        await query(settings)

    check(error.value, "relay", "symbolic link", "RELAY_REGISTRY_DIR", permanent=True)


@pytest.mark.parametrize(
    ("stderr", "status", "hop", "says", "permanent"),
    [
        # gcloud, as its releases say it.
        (
            [
                "ERROR: (gcloud.compute.ssh) You do not currently have an active account selected.",
                "Please run:",
                "  $ gcloud auth login",
            ],
            1,
            "command",
            "gcloud is not logged in",
            True,
        ),
        (
            ["ERROR: (gcloud.compute.ssh) There was a problem refreshing auth tokens: Reauthentication required."],
            1,
            "command",
            "gcloud is not logged in",
            True,
        ),
        (
            [
                "ERROR: (gcloud.compute.ssh) Could not fetch resource:",
                " - The resource 'projects/p/zones/z/instances/vm' was not found",
            ],
            1,
            "command",
            "gcloud: Could not fetch resource",
            True,
        ),
        (
            [
                "Updating project ssh metadata...",
                "ssh: connect to host 203.0.113.9 port 22: Connection refused",
                "ERROR: (gcloud.compute.ssh) [/usr/bin/ssh] exited with return code [255].",
            ],
            1,
            "network",
            "203.0.113.9 refuses connections on port 22",
            False,
        ),
        # What takes long, or another sshd, to be made.
        (["ssh: connect to host vm port 22: Operation timed out"], 255, "network", "vm does not answer", False),
        (["ssh: connect to host vm port 22: No route to host"], 255, "network", "No route to host", False),
        (["Not allowed at this time"], 255, "network", "before the log-in", False),
        (
            ["Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures"],
            255,
            "authentication",
            "too many keys",
            True,
        ),
        (["Timeout, server vm not responding."], 255, "lost", "vm stopped answering", False),
        (["Connection to vm closed by remote host."], 255, "lost", "broke", False),
        (["client_loop: send disconnect: Broken pipe"], 255, "lost", "broke", False),
        # All that OpenSSH 10 says unless it is asked for more, of two different ends.
        (["Connection closed by UNKNOWN port 65535"], 255, "network", "before the log-in", False),
        (["Connection reset by 192.0.2.1 port 22"], 255, "network", "before the log-in", False),
        (
            ['Authenticated to vm ([192.0.2.1]:22) using "publickey".', "Connection closed by 192.0.2.1 port 22"],
            255,
            "lost",
            "broke",
            False,
        ),
        # What ssh tells of its own work is no reason.
        (["debug1: connect to host vm port 22: Connection refused"], 255, "relay", "status 255", False),
        (["fish: Unknown command: sh", "sh: not found"], 127, "relay", "has no sh", True),
        # Noise is not taken for a reason.
        (
            ["Warning: Permanently added 'vm' to the list of known hosts.", "Killed by signal 15."],
            1,
            "relay",
            "1",
            False,
        ),
        ([], -9, "lost", "signal 9", False),
        (["\x1b[31mred\x1b[0m\x07"], 5, "relay", "status 5: [31mred[0m", False),
    ],
)
def test_what_is_seldom_met_is_understood_too(
    stderr: list[str], status: int, hop: Hop, says: str, *, permanent: bool
) -> None:
    error = diagnose(stderr, status)

    assert says in str(error)
    assert (error.hop, error.permanent) == (hop, permanent)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "stderr",
    [
        "ssh: Could not resolve hostname vm: Name or service not known",
        "t@vm: Permission denied (publickey).",
        "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures",
        "command-line: line 0: Bad configuration option: fancy",
        "unknown option -- 5",
        "ERROR: (gcloud.compute.ssh) Could not fetch resource:",
        "menu only",
    ],
)
@pytest.mark.parametrize("is_enrolled", [True, False])
def test_a_remedy_names_the_place_where_the_command_stands(stderr: str, *, is_enrolled: bool) -> None:
    there = diagnose([stderr], 255, is_enrolled=is_enrolled, command="relay_ssh_cmd in {config}").remedy
    assert "RELAY_SSH_CMD" not in there
    if not (is_enrolled and "denied" in stderr):
        assert "relay_ssh_cmd in {config}" in there


@pytest.mark.parametrize("said", ["kex_exchange_identification: Connection closed", "ERROR: (gcloud.x) It failed"])
def test_an_enrolled_machine_is_pointed_to_its_proxy_command_where_that_may_have_failed(said: str) -> None:
    assert "--proxy-command" in diagnose([said], 255, is_enrolled=True).remedy
    assert "--proxy-command" not in diagnose([said], 255).remedy


def test_only_the_tunnels_own_port_counts() -> None:
    assert allocated_port("Allocated port 41234 for remote forward to 127.0.0.1:4096", 4096) == 41234
    assert allocated_port("Allocated port 41234 for remote forward to 127.0.0.1:4095", 4096) is None
    assert is_forward_failure("Warning: remote port forwarding failed for listen port 10001", 10001)
    assert not is_forward_failure("Warning: remote port forwarding failed for listen port 8022", 10001)
