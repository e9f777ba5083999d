"""Instance names."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_connected import names

CONTRACT = Path(__file__).parents[1] / "contract"
SCHEMA = json.loads((CONTRACT / "registration.schema.json").read_text())["properties"]
NAMES = json.loads((CONTRACT / "golden" / "names.json").read_text())


@pytest.mark.parametrize(
    ("hostname", "directory", "name"),
    [
        ("laptop", "/home/ann/api", "laptop-api"),
        ("laptop", "/home/ann/api/", "laptop-api"),
        ("laptop", "/", "laptop-root"),
        ("laptop", '/home/ann/it\'s "mine" & ünïcode', 'laptop-it\'s "mine" & ünïcode'),
        ("laptop", "/srv/a\tb\\c", "laptop-a-b-c"),
        ("", "/srv/.hidden", "hidden"),
        ("..", "/srv/x", "-x"),
        ("h" * 70, "/srv/x", "h" * 64),
    ],
)
def test_the_default_name_is_host_and_directory_made_valid(hostname: str, directory: str, name: str) -> None:
    assert names.default_name(hostname, directory) == name


@given(st.text(), st.text())
def test_every_default_name_is_valid_by_the_contract(hostname: str, directory: str) -> None:
    name = names.default_name(hostname, directory)
    names.validate_name(name)
    jsonschema.validate(name, SCHEMA["name"])
    assert len(name.encode()) <= 200


@given(st.text(), st.text())
def test_every_suffixed_name_is_valid_and_another_one(hostname: str, directory: str) -> None:
    tried = list(islice(names.candidates(names.default_name(hostname, directory)), 12))
    for name in tried:
        names.validate_name(name)
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize("name", ["", " a", "a ", ".a", "a/b", "a\\b", "a\nb", "a\x1b[31mb", "x" * 65, "日" * 67])
def test_a_name_that_the_contract_forbids_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the instance name"):
        names.validate_name(name)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name["asked"])
def test_a_name_is_asked_for_as_a_provisioned_relay_will_have_it(name: dict[str, str]) -> None:
    assert names.with_client(name["asked"], "laptop") == name["at_laptops_relay"]
    assert names.with_client(name["asked"], None) == name["asked"]
