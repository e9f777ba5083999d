"""`opencode-gateway doctor`: a line each of what it looked at, and what to do about what is wrong."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth import enrolment
from opencode_gateway.people.users import Users
from opencode_gateway.refusal_log import Refusals
from opencode_gateway.refusals import Refusal
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CHEAP_HASH
from support.gateway.product_gateway import ProductGateway
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductGateway]:
    """A gateway that runs and has a person."""
    with ProductGateway(tmp_path_factory.mktemp("running")) as gateway:
        gateway.owner("users", "add", "ann", types="a long enough password\n")
        yield gateway


@pytest.fixture
def stopped(tmp_path: Path) -> ProductGateway:
    """A gateway that has its files, and does not run."""
    gateway = ProductGateway(tmp_path / "stopped")
    Store(gateway.data_dir / FILE_NAME).close()
    return gateway


def examined(gateway: ProductGateway) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Return the exit code, and the findings by what was looked at."""
    done = gateway.owner("doctor", "--json")
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in told["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def assert_fault(found: dict[str, list[dict[str, str]]], check: str, text: str, remedy: str) -> None:
    faults = [finding for finding in found[check] if finding["state"] == "fault"]
    assert any(text in fault["text"] and remedy in fault["remedy"] for fault in faults), found


def test_a_gateway_that_is_well_has_nothing_to_mend(running: ProductGateway) -> None:
    code, found = examined(running)

    assert code == 0, found
    assert {
        "settings",
        "servers",
        "tools",
        "files",
        "disk",
        "people",
        "service",
        "database",
        "clients",
        "refusals",
    } <= set(found)
    assert found["people"][0]["text"] == "1 can log in with a password"
    shown = running.owner("doctor").stdout
    assert "ok    service: it answers, and so does every server behind it\n" in shown


def test_it_says_whether_the_window_is_open(running: ProductGateway) -> None:
    assert "clients allow" in examined(running)[1]["clients"][0]["remedy"]
    store = Store(running.data_dir / FILE_NAME)
    enrolment.open_window(store, minutes=5, now=time.time())
    store.close()

    assert "a window is open" in examined(running)[1]["clients"][0]["text"]


def test_who_was_refused_today_is_shown_and_no_fault(running: ProductGateway) -> None:
    running.request("POST", "/token", {"Origin": "https://evil.example.org"})
    eventually(lambda: running.lists("refusals"), "the refusal")

    code, found = examined(running)

    assert code == 0
    (finding,) = found["refusals"]
    assert finding["state"] == "note"
    assert "https://evil.example.org from 127.0.0.1, 1 time: " in finding["text"]
    assert "clients.origins" in finding["remedy"]


def test_a_gateway_that_does_not_run_and_has_nobody(stopped: ProductGateway) -> None:
    code, found = examined(stopped)

    assert code == 1
    assert_fault(found, "service", f"nothing answers on 127.0.0.1:{stopped.port}", "systemctl restart")
    assert_fault(found, "people", "nobody can log in", "users add")


def test_a_server_that_does_not_start_is_no_reason_to_restart_the_gateway(tmp_path: Path) -> None:
    gateway = ProductGateway(tmp_path / "gateway")
    (tmp_path / "gateway" / "servers.json").write_text('{"broken": {"command": "/bin/false"}}')
    with gateway:
        _, found = examined(gateway)

    assert_fault(found, "service", "no answer from: broken", "journalctl")
    assert "restart" not in found["service"][0]["remedy"]


def test_settings_that_are_wrong_are_all_that_is_said(stopped: ProductGateway) -> None:
    stopped.config.write_text('{"public_url": "https://relay.example.org", "clients": {"origin": []}}')

    code, found = examined(stopped)

    assert (code, list(found)) == (1, ["settings"])
    assert_fault(found, "settings", "clients.origin", "check")


def test_files_that_others_may_read_are_named(stopped: ProductGateway) -> None:
    database = stopped.data_dir / FILE_NAME
    database.chmod(0o640)
    stopped.data_dir.chmod(0o755)

    _, found = examined(stopped)

    assert_fault(found, "files", str(database), f"chmod 600 {database}")
    assert_fault(found, "files", str(stopped.data_dir), f"chmod 700 {stopped.data_dir}")


def test_a_damaged_database_is_found(stopped: ProductGateway) -> None:
    path = stopped.data_dir / FILE_NAME
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("CREATE TABLE filled (x)")
        db.executemany("INSERT INTO filled VALUES (?)", [("y" * 1000,)] * 200)
    db.close()
    content = bytearray(path.read_bytes())
    content[-20_000:-10_000] = b"\xff" * 10_000
    path.write_bytes(content)

    _, found = examined(stopped)

    assert [finding["state"] for finding in found["database"]] == ["fault"]


def test_a_server_that_is_not_installed_is_named(tmp_path: Path) -> None:
    gateway = ProductGateway(tmp_path / "gateway")
    (tmp_path / "gateway" / "servers.json").write_text('{"notes": {"command": "no-such-program"}}')

    _, found = examined(gateway)

    assert_fault(found, "servers", "no-such-program", "notes.command")


def test_tools_that_a_map_from_before_hides_are_named_with_where_they_belong(tmp_path: Path) -> None:
    old = {"observe": ["instances", "read"], "approve": ["reply"], "drive": ["send"]}
    gateway = ProductGateway(tmp_path / "gateway", capabilities=old)
    (tmp_path / "gateway" / "servers.json").write_text('{"opencode": {"command": "opencode-mcp"}}')

    (finding,) = examined(gateway)[1]["tools"]

    assert finding["state"] == "note"
    assert "no capability lists changes, control, inbox, sessions, wait, so" in finding["text"]
    assert finding["text"].endswith(": changes, inbox, sessions, wait to observe; control to drive")


def test_a_provider_that_is_not_reached_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("\n")
    sign_in: dict[str, Any] = {
        "mode": "oidc",
        "issuer": "https://localhost:1",
        "client_id": "relay",
        "client_secret_file": str(secret),
        "users": {"ann@example.org": ["observe"]},
    }

    _, found = examined(ProductGateway(tmp_path / "gateway", sign_in=sign_in))

    assert_fault(found, "provider", "https://localhost:1/", "firewall")
    assert_fault(found, "people", str(secret), "client secret")


def test_what_strangers_wrote_does_not_reach_the_terminal(stopped: ProductGateway) -> None:
    refusals = Refusals(Store(stopped.data_dir / FILE_NAME))
    refusals.record(Refusal(kind="window", reason="no", remedy="yes", client="\x1b[2J\u202e", address="203.0.113.7"))
    refusals.close()

    shown = stopped.owner("doctor").stdout

    assert "203.0.113.7" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_a_person_who_is_disabled_is_nobody(stopped: ProductGateway) -> None:
    users = Users(stopped.data_dir / "users.json")
    users.add("ann", CHEAP_HASH, CAPABILITIES)
    users.set_disabled("ann", disabled=True)

    assert_fault(examined(stopped)[1], "people", "nobody can log in", "users add")
