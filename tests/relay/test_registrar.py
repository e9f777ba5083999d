"""What is written in the registry directory, whatever a client sends, and when it goes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_common.registration import parse_registration
from opencode_relay.limits import ClientLog
from opencode_relay.protocol import LineRefusal
from opencode_relay.registrar import Registrar, RegistrarEntry, validated

if TYPE_CHECKING:
    from collections.abc import Callable

ANY_PORT = range(1024, 65536)
GOLDEN = Path(__file__).parents[1] / "contract" / "golden"
PLAIN: dict[str, Any] = json.loads((GOLDEN / "registration.json").read_text())
ID, OTHER_ID = "0" * 32, "1" * 32


@pytest.fixture
def notes() -> list[Callable[[], None]]:
    """What takes the goodbye notes away again: called by these tests instead of by the agent's clock."""
    return []


@pytest.fixture
def registrar(tmp_path: Path, notes: list[Callable[[], None]]) -> Registrar:
    return Registrar(tmp_path, ClientLog(), notes.append)


def register(
    registrar: Registrar, name: str = "laptop-api", *, instance_id: str = ID, port: int = 10001
) -> tuple[RegistrarEntry, list[RegistrarEntry]]:
    return registrar.register("laptop", instance_id, validated("laptop", {**PLAIN, "name": name, "port": port}))


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("registration*.json")), ids=lambda path: path.stem)
def test_the_contracts_registrations_are_taken_under_the_clients_name(golden: Path) -> None:
    registration = validated("laptop", json.loads(golden.read_text()))
    assert registration.name.startswith("laptop")
    assert registration.client == "laptop"
    assert registration.closed_at is None


FILES = st.fixed_dictionaries(
    {
        "name": st.text(max_size=70) | st.just("../../etc/cron.d/x") | st.text("./\\\0 \n", max_size=4),
        "hostname": st.text(max_size=40),
        "port": st.integers(0, 70_000) | st.booleans() | st.text(),
        "localPort": st.integers(1_000, 66_000),
        "cwd": st.text(max_size=80) | st.just("\U0001f600" * 4096) | st.just("\x01" * 4096),
        "connectedAt": st.datetimes().map(lambda time: f"{time.isoformat()}Z") | st.text(),
    },
    optional={"client": st.text(), "closedAt": st.text(), "extra": st.integers(), "../x": st.none()},
)


@given(FILES)
def test_whatever_is_taken_is_a_registration_that_the_server_reads_and_the_clients_own(
    file: dict[str, object],
) -> None:
    try:
        registration = validated("laptop", file)
    except LineRefusal:
        return
    content = registration.model_dump_json(by_alias=True, exclude_none=True).encode()
    read = parse_registration(content, f"{registration.name}.json", ANY_PORT)
    assert read == registration
    assert read.client == "laptop"
    assert re.fullmatch(r"laptop[\w.-]*", read.name)
    assert Path("/registry", f"{read.name}.json").parent == Path("/registry")
    assert b"\n" not in content


def test_a_name_that_the_clients_name_makes_too_long_is_refused() -> None:
    with pytest.raises(LineRefusal, match="with laptop- before it") as refused:
        validated("laptop", {**PLAIN, "name": "x" * 60})
    assert refused.value.code == "bad-name"


def test_a_registration_too_large_for_its_readers_is_refused() -> None:
    with pytest.raises(LineRefusal, match="larger than 16384 bytes"):
        validated("laptop", {**PLAIN, "cwd": "\U0001f600" * 4096})


@pytest.mark.parametrize(
    "golden", json.loads((GOLDEN / "names.json").read_text()), ids=lambda golden: golden["asked"]
)
def test_a_name_is_letters_digits_dots_and_dashes_whatever_was_asked_for(golden: dict[str, str]) -> None:
    name = validated("laptop", {**PLAIN, "name": golden["asked"]}).name
    assert name == golden["at_laptops_relay"]
    assert validated("laptop", {**PLAIN, "name": name}).name == name


@pytest.mark.parametrize("name", ["!", "… ?", "(.x)"])
def test_a_name_of_which_nothing_or_a_hidden_file_is_left_is_refused(name: str) -> None:
    with pytest.raises(LineRefusal) as refused:
        validated("laptop", {**PLAIN, "name": name})
    assert refused.value.code == "bad-name"


def test_a_newer_session_takes_over_and_the_older_one_removes_nothing(registrar: Registrar, tmp_path: Path) -> None:
    old, none = register(registrar)
    assert none == []
    new, replaced = register(registrar, port=10002)
    assert replaced == [old]
    registrar.release(old)
    registrar.say_goodbye(old)
    assert json.loads((tmp_path / "laptop-api.json").read_text())["port"] == 10002
    registrar.release(new)
    assert list(tmp_path.iterdir()) == []


def test_an_instance_that_comes_under_another_name_says_goodbye_under_the_old_one(
    registrar: Registrar, notes: list[Callable[[], None]], tmp_path: Path
) -> None:
    old, _ = register(registrar)
    _, replaced = register(registrar, "laptop-2")
    assert replaced == [old]
    assert "closedAt" in json.loads((tmp_path / "laptop-api.json").read_text())
    assert "closedAt" not in json.loads((tmp_path / "laptop-2.json").read_text())
    for clear in notes:
        clear()
    assert [path.name for path in tmp_path.iterdir()] == ["laptop-2.json"]


def test_a_name_or_port_of_another_living_instance_is_refused(registrar: Registrar) -> None:
    register(registrar)
    with pytest.raises(LineRefusal) as taken:
        register(registrar, instance_id=OTHER_ID, port=10002)
    assert (taken.value.code, taken.value.holder) == ("name-taken", PLAIN["hostname"])
    with pytest.raises(LineRefusal) as used:
        register(registrar, "laptop-2", instance_id=OTHER_ID)
    assert used.value.code == "bad-port"
    assert len(registrar.of_client("laptop")) == 1


def test_a_goodbye_is_cleared_unless_the_name_is_registered_again(
    registrar: Registrar, notes: list[Callable[[], None]], tmp_path: Path
) -> None:
    entry, _ = register(registrar)
    registrar.say_goodbye(entry)
    assert "closedAt" in json.loads((tmp_path / "laptop-api.json").read_text())
    again, _ = register(registrar, instance_id=OTHER_ID)
    notes.pop()()
    assert "closedAt" not in json.loads((tmp_path / "laptop-api.json").read_text())
    registrar.say_goodbye(again)
    notes.pop()()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_and_nothing_is_registered(registrar: Registrar, tmp_path: Path) -> None:
    (tmp_path / "laptop-api.json").mkdir()
    with pytest.raises(LineRefusal, match="cannot write") as refused:
        register(registrar)
    assert refused.value.code == "write-failed"
    assert registrar.of_client("laptop") == []
    assert [path.name for path in tmp_path.iterdir()] == ["laptop-api.json"]


def test_emptying_removes_files_and_links_but_follows_none(registrar: Registrar, tmp_path: Path) -> None:
    outside = tmp_path / "directory"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / ".staged").touch()
    (tmp_path / "laptop-api.json").touch()
    (tmp_path / "link.json").symlink_to(outside / "kept")
    registrar.empty()
    assert list(tmp_path.iterdir()) == [outside]
    assert (outside / "kept").exists()
