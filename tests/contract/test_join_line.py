"""The join line: what the relay prints and the launcher takes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from opencode_connected.errors import UsageError
from opencode_connected.join import parse_join_line
from opencode_relay.clients import EnrolledMachine
from opencode_relay.join import join_line

HERE = Path(__file__).parent
SCHEMA = Draft202012Validator(json.loads((HERE / "join.schema.json").read_text()))
GOLDEN: list[dict[str, Any]] = [
    json.loads(line) for line in (HERE / "golden" / "join.jsonl").read_text().splitlines()
]
PLAIN: dict[str, Any] = GOLDEN[0]["fields"]


def line_of(fields: object) -> str:
    content = json.dumps(fields, separators=(",", ":")).encode()
    return "ocr1:" + base64.urlsafe_b64encode(content).decode().rstrip("=")


def launcher_takes(line: str) -> bool:
    try:
        parse_join_line(line)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["fields"]["host"])
def test_a_golden_line_is_the_encoding_of_its_fields_and_the_launcher_reads_them(golden: dict[str, Any]) -> None:
    SCHEMA.validate(golden["fields"])
    assert line_of(golden["fields"]) == golden["line"]
    assert parse_join_line(f" {golden['line']}\n").model_dump(by_alias=True) == golden["fields"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["fields"]["host"])
def test_the_relay_prints_the_golden_line_for_a_client(golden: dict[str, Any]) -> None:
    fields = golden["fields"]
    first, last = map(int, fields["ports"].split("-"))
    client = EnrolledMachine(name=fields["client"], first=first, last=last, key=PLAIN["hostKey"])
    relay = {"host": fields["host"], "port": fields["port"], "user": fields["user"], "host_key": fields["hostKey"]}
    assert join_line(client, **relay) == golden["line"]


def with_field(field: str, *values: object) -> list[dict[str, Any]]:
    return [{**PLAIN, field: value} for value in values]


HOSTS_REFUSED = ["", "-x", "-oProxyCommand=x", "a b", "a@b", "a/b", "a%h", "a\nb", "a,b", "*", "x" * 254, None, 7]
USERS_REFUSED = ["", "-l", "Root", "a b", "a@b", "x" * 33, None]
KEYS_REFUSED = [
    "",
    "ssh-ed25519",
    f"no-pty {PLAIN['hostKey']}",
    f"{PLAIN['hostKey']} comment",
    f"{PLAIN['hostKey']}\n@cert-authority * {PLAIN['hostKey']}",
    PLAIN["hostKey"].replace("ssh-ed25519", "ssh-dss"),
    f"ssh-rsa {'A' * 2048}",
    None,
]
CLIENTS_REFUSED = ["", "-a", "_a", "a b", "a.b", "ä", "x" * 33, None]
PORTS_REFUSED = ["", "10000", "10000-", "10000-10015-1", "01024-1030", "1024 - 1030", 10000, None]


@pytest.mark.parametrize(
    "fields",
    [
        *with_field("host", *HOSTS_REFUSED),
        *with_field("port", 0, -1, 65536, "22", 22.5, True, None),
        *with_field("user", *USERS_REFUSED),
        *with_field("hostKey", *KEYS_REFUSED),
        *with_field("client", *CLIENTS_REFUSED),
        *with_field("ports", *PORTS_REFUSED),
        *({key: value for key, value in PLAIN.items() if key != missing} for missing in PLAIN),
        [],
        None,
    ],
    ids=ascii,
)
def test_neither_schema_nor_launcher_takes_what_is_no_enrolment(fields: object) -> None:
    assert not SCHEMA.is_valid(fields)
    assert not launcher_takes(line_of(fields))


@pytest.mark.parametrize(
    "fields",
    [
        # A newline at the end: Python's `$`, in whose hands the schema is here, looks past it.
        *({**PLAIN, field: f"{PLAIN[field]}\n"} for field in ("host", "user", "hostKey", "client", "ports")),
        *with_field("host", ":::", "1:2", "12345::"),
        *with_field("hostKey", PLAIN["hostKey"].replace("ssh-ed25519", "ssh-rsa")),
        *with_field("ports", "1023-1030", "10015-10000", "65530-65536"),
    ],
    ids=ascii,
)
def test_the_launcher_refuses_also_what_a_schema_cannot_tell(fields: dict[str, Any]) -> None:
    assert not launcher_takes(line_of(fields))


@pytest.mark.parametrize(
    "fields",
    [
        *with_field("host", "vm", "a-b.c_d", "127.0.0.1", "::1", "x" * 253),
        *with_field("client", "a", "A-_", "x" * 32),
        *with_field("ports", "10000-10000", "1024-65535"),
        *with_field("something-new", {"deep": [1, 2]}),
    ],
    ids=ascii,
)
def test_schema_and_launcher_take_what_the_contract_allows(fields: dict[str, Any]) -> None:
    SCHEMA.validate(fields)
    assert launcher_takes(line_of(fields))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "no join line"),
        ("ssh me@relay", "no join line"),
        (GOLDEN[0]["line"].replace("ocr1:", "ocr2:"), "update opencode-relay"),
        (GOLDEN[0]["line"][:-1], "not complete"),
        (GOLDEN[0]["line"][:60], "not complete"),
        (GOLDEN[0]["line"] + "=", "not complete"),
        (GOLDEN[0]["line"].replace("ocr1:", "ocr1: "), "not complete"),
        (line_of({**PLAIN, "new": "x" * 4096}), "not complete"),
        (line_of({**PLAIN, "port": 0}), r"not complete.* \(port cannot be that\)"),
        ("ocr1:" + base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("="), "not complete"),
    ],
    ids=range(10),
)
def test_a_line_that_is_none_is_refused_with_what_to_do(line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        parse_join_line(line)
    assert str(refused.value).isprintable()


@given(st.text(max_size=200))
def test_no_text_does_more_than_to_be_refused(text: str) -> None:
    assert not launcher_takes(text)
    assert not launcher_takes(line_of(text))
