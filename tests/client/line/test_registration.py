from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from opencode_connected.registration import OwnRegistration, now_utc

CONTRACT = Path(__file__).parents[2] / "contract"
SCHEMA = json.loads((CONTRACT / "registration.schema.json").read_text("utf-8"))
PLAIN = OwnRegistration(
    name="laptop-api",
    hostname="laptop",
    port=10001,
    local_port=4096,
    cwd="/home/ann/api",
    connected_at="2026-11-24T16:00:00Z",
)


@pytest.mark.parametrize("file", ["registration.json", "registration-awkward.json"])
def test_golden_files_are_written_byte_for_byte(file: str) -> None:
    golden = (CONTRACT / "golden" / file).read_text("utf-8")

    assert OwnRegistration.model_validate_json(golden).to_json() + "\n" == golden


def test_the_goodbye_is_the_registration_with_the_time_it_was_closed() -> None:
    goodbye = json.loads(PLAIN.closed_json())

    assert list(goodbye) == [*json.loads(PLAIN.to_json()), "closedAt"]
    jsonschema.validate(goodbye, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"port": 80},
        {"port": 65536},
        {"port": "10001"},
        {"localPort": True},
        {"name": ""},
        {"name": "a/b"},
        {"name": "a\\b"},
        {"name": ".hidden"},
        {"name": " a"},
        {"name": "a\tb"},
        {"name": "a\u202eb"},
        {"name": "\ud800"},
        {"name": "x" * 65},
        {"name": "😀" * 51},
        {"cwd": ""},
        {"hostname": "h" * 256},
    ],
)
def test_what_the_contract_forbids_is_refused(change: dict[str, object]) -> None:
    fields = {**PLAIN.model_dump(by_alias=True), **change}

    with pytest.raises(ValidationError):
        OwnRegistration.model_validate(fields)


def test_a_directory_whose_name_is_no_utf8_can_be_registered() -> None:
    awkward = OwnRegistration.model_validate({**PLAIN.model_dump(), "cwd": "/srv/caf\udce9"})

    assert awkward.to_json().encode() == PLAIN.to_json().replace("/home/ann/api", "/srv/caf�").encode()


@given(cwd=st.text(min_size=1, max_size=50), hostname=st.text(min_size=1, max_size=50))
def test_every_registration_is_one_line_that_follows_the_schema(cwd: str, hostname: str) -> None:
    fields = {**PLAIN.model_dump(), "cwd": cwd, "hostname": hostname, "connected_at": now_utc()}
    line = OwnRegistration.model_validate(fields).to_json()

    assert "\n" not in line
    assert "\r" not in line
    jsonschema.validate(json.loads(line), SCHEMA)
