"""One connection, through a real ssh and a real sshd."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from client.line.conftest import fake_relay, line_settings, make_key, registration
from opencode_connected.line.connection import LineConnection
from opencode_connected.line.errors import ForwardRefused, LineNameTaken, LineRefused
from opencode_connected.line.inquiry import probe, query
from support.line.sshd import Sshd, unix_user
from support.ports import free_port, is_open
from support.processes import has_ended, named
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth

HERE = Path(__file__).parent


@pytest.mark.parametrize("login_shell", ["bash", "dash", "fish", "tcsh", "zsh"])
async def test_any_login_shell_of_any_user_will_do(login_shell: str, tmp_path: Path, opencode: FakeHealth) -> None:
    directory = 'a registry/it\'s "mine" $HOME `x` !bang \\ ünïcode'
    configured = f"~/{directory}" if login_shell == "bash" else directory
    with unix_user(login_shell) as user, Sshd(tmp_path / "relay", user=user) as relay:
        async with LineConnection(line_settings(relay, opencode, configured), forward=0) as connection:
            await connection.open()
            what = registration(opencode, 'it\'s "mine" $HOME `x` !bang ünïcode').model_copy(
                update={"port": connection.port}
            )

            registered = await connection.register(what)

            assert (registered.name, registered.health) == (what.name, "ok")
            file = Path(f"~{user}").expanduser() / directory / f"{what.name}.json"
            assert file.read_text("utf-8") == what.to_json() + "\n"
            assert file.owner() == user
            assert (await connection.ping()).health == "ok"
            await connection.bye()
        eventually(lambda: not file.exists(), "the note is gone")
        eventually(lambda: relay.sessions() == [], "no session is left")


async def test_an_sshd_that_runs_without_root_will_do(opencode: FakeHealth) -> None:
    # Not in pytest's own directory, which only root can look into.
    with tempfile.TemporaryDirectory() as temporary, unix_user("bash") as user:
        directory = Path(temporary)
        directory.chmod(0o711)
        shutil.chown(await asyncio.to_thread(make_key, directory / "host_key"), user)
        with Sshd(directory, user=user, inside=("runuser", "--user", user, "--")) as relay:
            probed = await probe(line_settings(relay, opencode, "registry"))

    assert probed.health == "ok"


async def test_the_tunnel_leads_to_opencode_and_listens_on_loopback_only(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with LineConnection(settings, forward=0) as connection:
        await connection.open()

        assert await connection.probe() == "ok"
        assert opencode.requests == 1
        listeners = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr]
        assert {address.ip for address in listeners if address.port == connection.port} == {"127.0.0.1"}
    await eventually_async(lambda: not is_open(connection.port), "the port is free")


async def test_the_port_may_be_told(settings: LineSettings) -> None:
    port = free_port()
    async with LineConnection(settings, forward=port) as connection:
        await connection.open()

        assert connection.port == port
        assert await connection.probe() == "ok"


async def test_a_port_that_somebody_has_is_an_error_that_names_it(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with LineConnection(settings, forward=opencode.port) as connection:
        with pytest.raises(ForwardRefused, match=f"does not listen on port {opencode.port}"):
            await connection.open()


async def test_a_refusal_is_not_overlooked_by_a_launcher_that_was_too_busy_to_listen_to_ssh_from_the_start(
    settings: LineSettings,
) -> None:
    loop = asyncio.get_running_loop()

    def be_busy() -> None:  # each turn of the loop takes long enough for the fake to say all that it has to say
        time.sleep(0.1)
        if opening:
            loop.call_soon(be_busy)

    opening = True
    loop.call_soon(be_busy)
    async with LineConnection(fake_relay(settings, "no-forward"), forward=10001) as connection:
        with pytest.raises(ForwardRefused):
            await connection.open()
        opening = False


async def test_a_second_instance_learns_who_has_the_name(settings: LineSettings, opencode: FakeHealth) -> None:
    other = replace(settings, instance_id="f" * 32)
    async with LineConnection(settings, forward=0) as first, LineConnection(other, forward=0) as second:
        for connection in (first, second):
            await connection.open()
        await first.register(registration(opencode).model_copy(update={"port": first.port}))

        with pytest.raises(LineNameTaken, match="the name 'laptop-api' is held by laptop"):
            await second.register(registration(opencode).model_copy(update={"port": second.port}))

        assert (await second.ping()).refusal is None


async def test_an_instance_whose_name_was_taken_meanwhile_learns_which_name_and_by_whom(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    other = replace(settings, instance_id="f" * 32)
    async with LineConnection(settings, forward=0) as first, LineConnection(other, forward=0) as second:
        for connection in (first, second):
            await connection.open()
        await first.register(registration(opencode).model_copy(update={"port": first.port}))
        (registry_dir / ".laptop-api.owner").unlink()
        await second.register(registration(opencode).model_copy(update={"port": second.port}))

        refusal = (await first.ping()).refusal

    assert str(refusal).startswith("the name 'laptop-api' is held by laptop (process ")


async def test_gateway_ports_are_refused_before_anybody_can_find_them(
    tmp_path: Path, opencode: FakeHealth, registry_dir: Path
) -> None:
    with Sshd(tmp_path / "relay", options=("GatewayPorts yes",)) as relay:
        async with LineConnection(line_settings(relay, opencode, registry_dir), forward=0) as connection:
            await connection.open()

            with pytest.raises(LineRefused, match="listens beyond the relay's loopback") as refused:
                await connection.register(registration(opencode).model_copy(update={"port": connection.port}))

    assert refused.value.code == "exposed"
    assert refused.value.permanent
    assert not registry_dir.exists()


async def test_query_and_probe_register_nothing(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    assert await query(settings) == []
    probed = await probe(settings)
    assert (probed.health, probed.agent) == ("ok", "sh")
    opencode.status = 0
    assert (await probe(settings)).health == "failed"
    assert list(registry_dir.iterdir()) == []

    opencode.status = 200
    async with LineConnection(settings, forward=0) as connection:
        await connection.open()
        what = registration(opencode).model_copy(update={"port": connection.port})
        await connection.register(what)
        assert await query(settings) == [json.loads(what.to_json())]


async def test_gcloud_works_as_a_prefix_with_its_noise_and_its_children(
    settings: LineSettings, monkeypatch: pytest.MonkeyPatch, opencode: FakeHealth, relay: Sshd
) -> None:
    monkeypatch.setenv("FAKE_GCLOUD_SSH", relay.ssh_command)
    gcloud = replace(settings, ssh_command=f"{shlex.quote(str(HERE / 'fake_gcloud.sh'))} compute ssh vm --zone z --")

    async with LineConnection(gcloud, forward=0) as connection:
        await connection.open()
        await connection.register(registration(opencode).model_copy(update={"port": connection.port}))
        ssh = named("ssh", psutil.Process().children(recursive=True))
        assert ssh

    # Whatever it had started is gone with it, not only gcloud.
    eventually(lambda: all(has_ended(process) for process in ssh), "ssh is gone")
    await eventually_async(lambda: relay.sessions() == [], "no session is left on the relay")


async def test_an_ssh_before_8_7_will_do(settings: LineSettings, opencode: FakeHealth) -> None:
    old = replace(settings, ssh_command=settings.ssh_command.replace("ssh", str(HERE / "fake_old_ssh.sh"), 1))

    assert (await probe(old)).health == "ok"


@pytest.mark.parametrize("quiet", ["-q", "-xqT", "-o LogLevel=QUIET", "-oLogLevel=ERROR"])
async def test_a_prefix_that_silences_ssh_will_do(quiet: str, settings: LineSettings) -> None:
    silenced = replace(settings, ssh_command=settings.ssh_command.replace("ssh", f"ssh {quiet}", 1))

    assert (await probe(silenced)).health == "ok"


async def test_a_hostile_ssh_config_does_not_break_the_line(
    settings: LineSettings, relay: Sshd, tmp_path: Path, opencode: FakeHealth
) -> None:
    config = tmp_path / "ssh config"
    config.write_text(
        f"""
        Host *
          ControlMaster auto
          ControlPath {tmp_path}/control
          ControlPersist yes
          RequestTTY force
          RemoteCommand echo nothing of ours
          SessionType none
          StdinNull yes
          ForkAfterAuthentication yes
          ForwardAgent yes
          ForwardX11 yes
          ExitOnForwardFailure yes
          LocalForward 127.0.0.1:{opencode.port} 127.0.0.1:9
          RemoteForward 127.0.0.1:{relay.port} 127.0.0.1:9
          RemoteForward 127.0.0.1:0 127.0.0.1:9
          PermitLocalCommand yes
          LocalCommand touch {tmp_path}/local-command
          LogLevel QUIET
          ConnectTimeout 1
        """
    )
    hostile = replace(settings, ssh_command=settings.ssh_command.replace("-F none", f"-F '{config}'"))

    assert (await probe(hostile)).health == "ok"

    assert not (tmp_path / "control").exists()
    assert not (tmp_path / "local-command").exists()
    await eventually_async(lambda: relay.sessions() == [], "no session is left on the relay")


async def test_a_connection_that_the_user_shares_is_left_alone(settings: LineSettings, tmp_path: Path) -> None:
    control = tmp_path / "control"
    words = [*shlex.split(settings.ssh_command), "-o", f"ControlPath={control}"]
    master = await asyncio.create_subprocess_exec(*words, "-o", "ControlMaster=yes", "-N")
    await eventually_async(control.exists, "the user's own connection")
    config = tmp_path / "config"
    config.write_text(f"ControlPath {control}\n")

    # Shared, it would not tell the port, and keep the listener when ours ends.
    probed = await probe(replace(settings, ssh_command=settings.ssh_command.replace("-F none", f"-F '{config}'")))

    assert probed.health == "ok"
    await eventually_async(lambda: not is_open(probed.port), "the port is free")
    master.terminate()
    await master.wait()


async def test_a_program_that_ignores_sigterm_is_killed(settings: LineSettings, tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(f'#!/bin/sh\ntrap "" TERM\n{sys.executable} {HERE / "fake_relay.py"} silent "$@"\n')
    stubborn.chmod(0o755)

    async with LineConnection(replace(settings, ssh_command=str(stubborn)), forward=0) as connection:
        await connection.open()
        assert connection._transport is not None
        group = connection._transport.get_pid()

    with pytest.raises(ProcessLookupError):
        await eventually_async(lambda: os.killpg(group, 0), "the process group is gone")


async def test_cancelling_leaves_no_ssh_behind(settings: LineSettings, relay: Sshd) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    for moment in range(12):

        async def use() -> None:
            async with LineConnection(settings, forward=0) as connection:
                await connection.open()
                await connection.ended.wait()

        task = asyncio.create_task(use())
        await asyncio.wait({task}, timeout=moment * 0.05)
        task.cancel()
        await asyncio.wait({task})

    def strays() -> set[int]:
        return {p.pid for p in psutil.Process().children(recursive=True) if not has_ended(p)} - before

    await eventually_async(lambda: strays() <= {p.pid for p in relay.sessions()} | _pid_of(relay), "no ssh is left")
    await eventually_async(lambda: relay.sessions() == [], "no session is left on the relay")


def _pid_of(relay: Sshd) -> set[int]:
    return {relay._process.pid} if relay._process else set()


async def test_the_death_of_the_launcher_by_sigkill_ends_everything(
    settings: LineSettings, relay: Sshd, registry_dir: Path
) -> None:
    program = f"""
import asyncio, sys
from client.line.conftest import registration
from opencode_connected.line.command import LineSettings
from opencode_connected.line.connection import LineConnection
from opencode_connected.registration import OwnRegistration

async def main():
    async with LineConnection({settings!r}, forward=0) as connection:
        await connection.open()
        await connection.register(OwnRegistration(name="n", hostname="h", port=connection.port,
            local_port={settings.local_port}, cwd="/", connected_at=""))
        print(connection.port, flush=True)
        await connection.ended.wait()

asyncio.run(main())
"""
    launcher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert launcher.stdout is not None
    port = int(await launcher.stdout.readline())
    ssh = psutil.Process(launcher.pid).children(recursive=True)
    assert [p.name() for p in ssh] == ["ssh"]
    assert (registry_dir / "n.json").exists()

    launcher.kill()
    await launcher.wait()

    await eventually_async(lambda: has_ended(ssh[0]), "ssh is gone")
    await eventually_async(lambda: relay.sessions() == [], "no session is left on the relay")
    await eventually_async(lambda: not is_open(port), "the port is free")
    await eventually_async(lambda: not list(registry_dir.iterdir()), "the registration is gone")
