"""The registration file: launcher, server and schema agree on what is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from opencode_common.registration import InvalidRegistration, parse_registration
from opencode_common.text import clean
from opencode_connected.registration import OwnRegistration as Written
from opencode_connected.registration import now_utc

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SCHEMA = Draft202012Validator(json.loads((HERE / "registration.schema.json").read_text()))
GOLDEN = sorted((HERE / "golden").glob("registration*.json"))
ANY_PORT = range(1024, 65536)
PLAIN: dict[str, Any] = json.loads((HERE / "golden" / "registration.json").read_text())


def server_takes(fields: dict[str, Any]) -> bool:
    content = json.dumps(fields).encode()
    try:
        parse_registration(content, f"{fields.get('name')}.json", ANY_PORT)
    except InvalidRegistration:
        return False
    return True


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_registration_fits_the_schema_and_the_server_reads_all_of_it(golden: Path) -> None:
    content = golden.read_bytes()
    fields = json.loads(content)
    SCHEMA.validate(fields)
    read = parse_registration(content, f"{fields['name']}.json", ANY_PORT)
    assert read.model_dump(by_alias=True, exclude_none=True) == fields


def with_field(field: str, *values: object) -> list[dict[str, Any]]:
    return [{**PLAIN, field: value} for value in values]


NAMES_REFUSED = ["", " x", "x ", ".x", "..", "a/b", "a\\b", "x" * 65, "a\nb", "a\x1bb", "a\x7fb", "\u3000", None, 1]
TEXTS_REFUSED: list[object] = ["", None, 1, ["x"], {}]
PORTS_REFUSED = [0, 80, 1023, 65536, -1, 1e400, 4096.5, "4096", True, None]


@pytest.mark.parametrize(
    "fields",
    [
        *with_field("name", *NAMES_REFUSED),
        *with_field("hostname", *TEXTS_REFUSED, "x" * 256),
        *with_field("port", *PORTS_REFUSED),
        *with_field("localPort", *PORTS_REFUSED),
        *with_field("cwd", *TEXTS_REFUSED, "x" * 4097),
        *with_field("connectedAt", None, 1, "2026-11-24T16:00:00Z" * 3),
        *with_field("client", "", 1, "x" * 65),
        *with_field("closedAt", 1, "2026-11-24T16:00:00Z" * 3),
        *({key: value for key, value in PLAIN.items() if key != missing} for missing in PLAIN),
    ],
    ids=str,
)
def test_neither_schema_nor_server_takes_what_is_no_registration(fields: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(fields)
    assert not server_takes(fields)


@pytest.mark.parametrize(
    "fields",
    [
        *with_field("name", "x", "x" * 64, "a b", "ünï-코드", "a.b", "-", "…", "con"),
        *with_field("port", 1024, 65535),
        *with_field("cwd", "x" * 4096, "/a\nb"),
        *with_field("connectedAt", "2026-11-24T16:00:00.123456+01:00"),
        *with_field("client", "x" * 64),
        *with_field("something-new", {"deep": [1, 2]}),
    ],
    ids=str,
)
def test_schema_and_server_take_what_the_contract_allows(fields: dict[str, Any]) -> None:
    SCHEMA.validate(fields)
    assert server_takes(fields)


@pytest.mark.parametrize(
    "fields",
    [
        *with_field("name", "\U0001f600" * 51, "a\u202eb", "a\u200bb", "\ud800"),
        *with_field("connectedAt", "yesterday", "2026-11-24T16:00:00", ""),
        *with_field("closedAt", "soon"),
    ],
    ids=ascii,
)
def test_the_server_refuses_also_what_a_schema_cannot_tell(fields: dict[str, Any]) -> None:
    assert not server_takes(fields)


TEXTS = st.text(max_size=80)
REGISTRATIONS = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "hostname": TEXTS,
        "port": st.integers(1000, 66_000),
        "localPort": st.integers(1000, 66_000),
        "cwd": TEXTS,
        "connectedAt": st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    },
    optional={"client": TEXTS, "closedAt": TEXTS, "extra": st.integers()},
)


@given(REGISTRATIONS)
def test_what_the_server_takes_fits_the_schema(fields: dict[str, Any]) -> None:
    if server_takes(fields):
        SCHEMA.validate(fields)


@given(TEXTS, TEXTS, st.integers(1000, 66_000), TEXTS)
def test_what_the_launcher_writes_fits_the_schema_and_the_server_reads_it(
    name: str, hostname: str, port: int, cwd: str
) -> None:
    def write(make: Callable[[Written], str]) -> None:
        content = make(written)
        SCHEMA.validate(json.loads(content))
        read = parse_registration(content.encode(), f"{name}.json", ANY_PORT)
        assert (read.name, read.hostname, read.port, read.cwd) == (name, hostname, port, cwd)

    try:
        written = Written(name=name, hostname=hostname, port=port, local_port=port, cwd=cwd, connected_at=now_utc())
    except ValueError:
        return
    write(Written.to_json)
    write(Written.closed_json)


@given(TEXTS)
def test_launcher_and_server_allow_the_same_names(name: str) -> None:
    try:
        Written(name=name, hostname="h", port=4096, local_port=4096, cwd="/", connected_at=now_utc())
    except ValueError:
        allowed = False
    else:
        allowed = True
    # What Unicode calls printable and nobody sees, such as the Hangul filler, is for the launcher to print as it is.
    assert server_takes({**PLAIN, "name": name}) == (allowed and clean(name) == name)
