"""What the guard says of itself, and the key of a guard without a relay: launcher, server and schema agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import ValidationError

from client.guard.guarded import guarded
from opencode_connected.guard.door import GuardDoor
from opencode_connected.guard.gate import DOCUMENT
from opencode_connected.guard.policy import OpenedDirectory, Policy, Right
from opencode_connected.guard.refusals import RequestRefused
from opencode_connected.guard.upstream import Target
from opencode_fleet.agents.guard import GUARD_PATH, GuardDocument
from opencode_fleet.errors import Refused as NotClosed
from opencode_fleet.transports.local_key import local_key_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
SCHEMA = Draft202012Validator(json.loads((HERE / "guard.schema.json").read_text()))
GOLDEN = sorted((HERE / "golden").glob("guard-*.json"))
KEY = HERE / "golden" / "guard.key"
PLAIN: dict[str, Any] = json.loads((HERE / "golden" / "guard-2.json").read_text())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_document_fits_the_schema_and_the_server_reads_all_of_it(golden: Path) -> None:
    told = json.loads(golden.read_bytes())
    SCHEMA.validate(told)
    read = GuardDocument.model_validate(told)
    assert list(read.rights) == told["rights"]
    assert list(read.verbs) == told["verbs"]
    assert (read.generation, read.version) == (told["generation"], told["version"])
    assert [(entry.path, entry.name, entry.opened, entry.afar) for entry in read.directories] == [
        (entry["path"], entry.get("name", ""), entry["opened"], entry.get("afar", False))
        for entry in told["directories"]
    ]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
async def test_the_guard_tells_a_golden_document_as_it_stands(golden: Path) -> None:
    told = json.loads(golden.read_bytes())
    policy = Policy(
        frozenset(Right(word) for word in told["rights"]),
        tuple(
            OpenedDirectory(entry["path"], entry.get("name"), entry["opened"], is_fixed=entry.get("afar", False))
            for entry in told["directories"]
        ),
    )
    target = Target("http://127.0.0.1:9", None, told["generation"], told["version"])
    async with guarded(target, policy) as guard:
        assert (await guard.client.get(DOCUMENT)).json() == told
    assert DOCUMENT == GUARD_PATH


def test_the_server_asks_to_close_what_was_opened_from_afar_and_nothing_else() -> None:
    read = GuardDocument.model_validate(PLAIN)
    read.check_close("/home/ann/code/web")
    for directory in ("/home/ann/api", "/home/ann/src", "/home/ann/src/within"):
        with pytest.raises(NotClosed, match=r"was not opened from afar.* Nothing was closed"):
            read.check_close(directory)


@pytest.mark.parametrize("field", sorted(PLAIN))
def test_neither_schema_nor_server_takes_another_shape(field: str) -> None:
    wrong = {**PLAIN, field: 5 if field != "guard" else 2}
    assert not SCHEMA.is_valid(wrong)
    # Words that are no list are none to the server: what it does not know it does not use.
    if field in ("rights", "verbs"):
        assert getattr(GuardDocument.model_validate(wrong), field) == ()
        return
    with pytest.raises(ValidationError):
        GuardDocument.model_validate(wrong)


def enters(door: GuardDoor, headers: Mapping[str, str]) -> bool:
    try:
        door.check(CIMultiDictProxy(CIMultiDict({"host": "127.0.0.1", **headers})))
    except RequestRefused:
        return False
    return True


def test_the_guard_lets_in_who_read_the_golden_key(tmp_path: Path) -> None:
    content = KEY.read_text()
    kept = tmp_path / ".laptop-api.key"
    kept.write_text(content)
    kept.chmod(0o600)
    door = GuardDoor(("opencode", content.strip()))
    assert enters(door, local_key_headers(tmp_path, "laptop-api"))
    assert not enters(door, {})
    kept.chmod(0o644)
    assert not enters(door, local_key_headers(tmp_path, "laptop-api"))
