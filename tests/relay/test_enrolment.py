"""Enrolling and revoking on a relay that is in use."""

from __future__ import annotations

import base64
import grp
import json
import signal
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from relay.raw_client import RawClient, hello
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth


@pytest.fixture
def relay(own_relay: ProvisionedRelay) -> ProvisionedRelay:
    """The one whose clients these tests change."""
    return own_relay


def forget_laptop(relay: ProvisionedRelay) -> None:
    """Take it out of what the agent goes by, and of nothing else."""
    path = relay.etc / "clients.json"
    state = json.loads(path.read_text())
    kept = [client for client in state["clients"] if client["name"] != "laptop"]
    path.write_text(json.dumps({**state, "clients": kept}))


def contents(relay: ProvisionedRelay) -> dict[str, tuple[bytes, float]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime) for path in relay.etc.iterdir()}


def test_the_files_are_for_those_who_need_them(relay: ProvisionedRelay) -> None:
    for name, group in (("clients.json", relay.agent_user), ("authorized_keys", relay.tunnel_user)):
        status = (relay.etc / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o640)
        assert grp.getgrgid(status.st_gid).gr_name == group


def test_a_key_may_listen_on_its_own_block_and_run_its_own_session_only(relay: ProvisionedRelay) -> None:
    lines = (relay.etc / "authorized_keys").read_text().splitlines()[1:]
    assert len(lines) == 2
    for line in lines:
        client = line.split()[-1]
        options, _, rest = line.partition(" ssh-ed25519 ")
        assert f"ssh-ed25519 {rest}" == f"{relay.public_key(client)} {client}"
        words, _, command = options.partition('command="exec ')
        listens = [f'permitlisten="127.0.0.1:{port}"' for port in relay.ports_of(client)]
        assert words.rstrip(",").split(",") == [
            "restrict",
            "port-forwarding",
            'permitopen="nowhere.invalid:1"',
            *listens,
        ]
        assert command.split()[1] == "-ISE"
        assert command.split()[-3] == client


def test_applying_the_same_list_again_changes_nothing(relay: ProvisionedRelay) -> None:
    before = contents(relay)
    outcome = relay.enrol("desktop", "laptop")
    assert (outcome["changed"], outcome["added"], outcome["removed"], outcome["cut"]) == (False, [], [], 0)
    assert contents(relay) == before


def test_a_check_says_what_would_happen_and_writes_nothing(relay: ProvisionedRelay) -> None:
    before = contents(relay)
    wanted = {"laptop": relay.public_key("other-key"), "tablet": relay.public_key("tablet")}
    with RawClient(relay, "desktop") as desktop:
        assert desktop.first["type"] == "ready"
        checked = relay.apply(wanted, "--check")
        assert contents(relay) == before
        assert desktop.ask({"type": "ping", "n": 1})["n"] == 1
        done = relay.apply(wanted)
        desktop.wait()
    assert checked == done
    assert (done["added"], done["removed"], done["rekeyed"], done["cut"]) == (["tablet"], ["desktop"], ["laptop"], 1)


def test_a_file_that_was_changed_by_hand_is_put_right(relay: ProvisionedRelay) -> None:
    keys = relay.etc / "authorized_keys"
    written = keys.read_text()
    keys.write_text(written + relay.public_key("stranger"))
    keys.chmod(0o666)
    assert relay.enrol("laptop", "desktop")["changed"]
    assert keys.read_text() == written
    assert stat.S_IMODE(keys.stat().st_mode) == 0o640


def test_revoking_cuts_the_clients_sessions_at_once_and_leaves_the_others_alone(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    mine, theirs = relay.ports_of("laptop"), relay.ports_of("desktop")
    with (
        RawClient(relay, "laptop", forward=mine[0], to=opencode.port) as first,
        RawClient(relay, "laptop", forward=mine[1], to=opencode.port) as second,
        RawClient(relay, "desktop", forward=theirs[0], to=opencode.port) as other,
    ):
        first.ask(hello(port=mine[0]))
        other.ask(hello(port=theirs[0], name="desktop-site"))
        assert second.first["type"] == "ready"
        revoked = json.loads(relay.run("revoke", "laptop", "--json").stdout)
        assert (revoked["removed"], revoked["cut"]) == (["laptop"], 2)
        first.wait()
        second.wait()
        relay.until_registered("desktop-site")
        assert other.ask({"type": "ping", "n": 1})["health"] == "ok"
    relay.until_logged("is gone: it is not enrolled any more")
    with RawClient(relay, "laptop") as again:
        assert again.wait() == 255
        assert "Permission denied (publickey)" in again.errors


def test_revoking_cuts_connections_without_a_session_too(relay: ProvisionedRelay) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", "-N", forward=port, to=port) as silent:
        eventually(lambda: is_open(port), "it listens unseen")
        assert json.loads(relay.run("revoke", "laptop", "--json").stdout)["cut"] == 1
        silent.wait()
        eventually(lambda: not is_open(port), "the port is free")


def test_the_agent_goes_by_who_is_enrolled_whatever_sshd_lets_in(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        forget_laptop(relay)
        relay.until_registered()
        client.wait()
    with RawClient(relay, "laptop") as client:
        assert client.first["code"] == "not-allowed"
        client.wait()


def test_an_instance_that_is_quit_just_as_its_key_goes_leaves_nothing(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        with suspended(relay.agent):  # so that it hears the one and reads the other at the same time
            client.send(b'{"type":"bye"}')
            forget_laptop(relay)
        client.wait()
        relay.until_registered()


def test_a_state_file_that_cannot_be_read_cuts_nobody_off(relay: ProvisionedRelay) -> None:
    written = (relay.etc / "clients.json").read_text()
    with RawClient(relay, "laptop") as client:
        assert client.first["type"] == "ready"
        for damage in (lambda: (relay.etc / "clients.json").write_text("{"), (relay.etc / "clients.json").unlink):
            damage()
            with RawClient(relay, "desktop") as other:
                assert other.first["type"] == "ready"
            assert client.ask({"type": "ping", "n": 1})["n"] == 1
        relay.until_logged("clients.json is damaged")
    (relay.etc / "clients.json").write_text(written)


def test_an_agent_that_never_could_read_who_is_enrolled_asks_for_patience(relay: ProvisionedRelay) -> None:
    state = relay.etc / "clients.json"
    written = state.read_text()
    relay.stop_agent()
    state.write_text("{")
    relay.start_agent()
    with RawClient(relay, "laptop") as client:
        assert client.first["code"] == "unavailable"
        client.wait()
    state.write_text(written)
    with RawClient(relay, "laptop") as client:
        assert client.first["type"] == "ready"


def test_revoking_does_not_need_the_agent(relay: ProvisionedRelay) -> None:
    relay.stop_agent()
    try:
        with RawClient(relay, "laptop") as waiting:
            eventually(lambda: "opencode-relay-session laptop" in relay.session_commands(), "its session waits")
            assert json.loads(relay.run("revoke", "laptop", "--json").stdout)["cut"] == 1
            waiting.wait()
    finally:
        relay.start_agent()


def test_a_new_key_takes_the_place_of_the_old_one(relay: ProvisionedRelay) -> None:
    ports = relay.ports_of("laptop")
    with RawClient(relay, "laptop") as old:
        assert old.first["type"] == "ready"
        keys = {"laptop": relay.public_key("new-key"), "desktop": relay.public_key("desktop")}
        outcome = relay.apply(keys)
        assert (outcome["rekeyed"], outcome["cut"]) == (["laptop"], 1)
        old.wait()
    with RawClient(relay, "laptop") as old:
        assert old.wait() == 255
    with RawClient(relay, "new-key") as new:
        assert new.first["client"] == "laptop"
    assert relay.ports_of("laptop") == ports


def test_enrolling_one_more_disturbs_nobody_and_it_can_come_at_once(relay: ProvisionedRelay) -> None:
    with RawClient(relay, "laptop") as laptop:
        assert laptop.first["type"] == "ready"
        assert relay.enrol("laptop", "desktop", "tablet")["added"] == ["tablet"]
        with RawClient(relay, "tablet") as tablet:
            assert tablet.first["client"] == "tablet"
        assert laptop.ask({"type": "ping", "n": 1})["n"] == 1


def test_a_revoked_key_is_refused_with_the_remedy_and_changes_nothing(relay: ProvisionedRelay) -> None:
    relay.run("revoke", "laptop")
    before = contents(relay)
    wanted = json.dumps({"clients": [{"name": "laptop", "key": relay.public_key("laptop")}]})
    ran = relay.run("apply", stdin=wanted)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "unrevoke SHA256:" in ran.stderr
    assert contents(relay) == before


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("apply",), "nonsense", "the list of clients is wrong"),
        (("revoke", "nobody"), "", "no client 'nobody' is enrolled"),
        (("unrevoke", "SHA256:x"), "", "no key 'SHA256:x' is revoked"),
        (("join", "nobody", "--host", "vm"), "", "no client 'nobody' is enrolled"),
        (("join", "laptop", "--host", "vm", "--host-key-file", "/nowhere"), "", "--host-key-file"),
        (("join", "laptop", "--host", "vm", "--host-key-file", "/dev/zero"), "", "it is no regular file"),
    ],
)
def test_what_a_person_must_mend_is_one_line(
    relay: ProvisionedRelay, arguments: tuple[str, ...], stdin: str, says: str
) -> None:
    ran = relay.run(*arguments, stdin=stdin)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert says in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--etc", "/nowhere", "clients"), "/nowhere/relay.json is missing"),
        (("--etc", "/nowhere", "clients"), "Run this command on the relay"),
        (("agent",), "systemctl start opencode-relay-agent.socket"),
    ],
)
def test_what_is_wrong_with_its_own_files_ends_with_exit_code_two(
    relay: ProvisionedRelay, arguments: tuple[str, ...], says: str
) -> None:
    ran = relay.run(*arguments)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert says in ran.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blockSize": 2}, "would move"),
        ({"blockSize": 0}, "blockSize"),
        ({"portRange": "80-9000"}, "portRange"),
        ({"tunnelUser": "nobody-of-that-name"}, "there is no user nobody-of-that-name"),
        ({"tunnelUser": "root; reboot"}, "tunnelUser"),
        ({"socket": '/run/x" y'}, "socket"),
        ({"registryDir": "relative"}, "registryDir"),
        ({"stateDir": "relative"}, "stateDir"),
        ({"journalDays": 366}, "journalDays"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_settings_that_make_no_sense_are_named(relay: ProvisionedRelay, change: dict[str, object], says: str) -> None:
    before = contents(relay)["clients.json"]
    relay.write_settings(**change)
    try:
        wanted = {"clients": [{"name": "a", "key": relay.public_key("desktop")}]}
        ran = relay.run("apply", stdin=json.dumps(wanted))
    finally:
        relay.write_settings()
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert says in ran.stderr
    assert contents(relay)["clients.json"] == before


def test_only_root_changes_who_is_enrolled(relay: ProvisionedRelay) -> None:
    before = contents(relay)
    ran = relay.run("revoke", "laptop", user=relay.agent_user)
    assert (ran.returncode, ran.stderr) == (1, "opencode-relay: only root can do this: sudo opencode-relay …\n")
    assert contents(relay) == before


def test_two_commands_do_not_change_the_clients_at_once(relay: ProvisionedRelay) -> None:
    with relay.locked():
        ran = relay.run("unrevoke", "laptop")
    assert ran.returncode == 1
    assert "another opencode-relay command" in ran.stderr


def test_the_list_of_clients_shows_what_they_have_registered(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        listing = json.loads(relay.run("clients", "--json").stdout)
        text = relay.run("clients").stdout
    shown = {client["name"]: client for client in listing["clients"]}
    assert shown["laptop"]["registrations"] == [{**hello(port=port)["file"], "client": "laptop"}]
    assert shown["desktop"]["registrations"] == []
    assert f"laptop  {port}-{port + 3}  SHA256:" in text
    assert f"  laptop-api  port {port}  /home/ann/api" in text


def test_the_join_line_holds_all_that_a_client_needs(relay: ProvisionedRelay, tmp_path: Path) -> None:
    host_key = tmp_path / "host.pub"
    host_key.write_text(relay.public_key("host") + " root@vm\n")
    ran = relay.run("join", "laptop", "--host", "vm.example.org", "--port", "2222", "--host-key-file", str(host_key))
    prefix, _, token = ran.stdout.strip().partition(":")
    assert prefix == "ocr1"
    ports = relay.ports_of("laptop")
    assert json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))) == {
        "host": "vm.example.org",
        "port": 2222,
        "user": relay.tunnel_user,
        "hostKey": relay.public_key("host"),
        "client": "laptop",
        "ports": f"{ports[0]}-{ports[-1]}",
    }


def test_sessions_that_a_command_could_not_cut_any_more_are_cut_by_the_next(relay: ProvisionedRelay) -> None:
    # As when the power failed between writing the files and cutting; and the agent hangs besides.
    state = json.loads((relay.etc / "clients.json").read_text())
    with RawClient(relay, "laptop") as laptop:
        assert laptop.first["type"] == "ready"
        with suspended(relay.agent):
            state["clients"] = [client for client in state["clients"] if client["name"] != "laptop"]
            (relay.etc / "clients.json").write_text(json.dumps(state))
            assert relay.enrol("desktop")["cut"] == 1
            laptop.wait()


@contextmanager
def suspended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
