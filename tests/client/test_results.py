"""The JSON that programs read: schemas are pinned, and real output keeps to them.

After a deliberate change: `python tests/client/test_results.py` writes the golden files anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from opencode_connected.commands.cleanup import CleanupResult
from opencode_connected.commands.close import CloseResult
from opencode_connected.commands.doctor import DoctorResult
from opencode_connected.commands.enroll import EnrollResult
from opencode_connected.commands.service import ServiceResult
from opencode_connected.commands.sessions import ReachableSessionsResult
from opencode_connected.commands.status import StatusResult

if TYPE_CHECKING:
    from client.launched import Machine
    from opencode_connected.result import CommandResult

GOLDEN = Path(__file__).parent / "golden"
RESULTS: dict[str, type[CommandResult]] = {
    "status": StatusResult,
    "sessions": ReachableSessionsResult,
    "cleanup": CleanupResult,
    "close": CloseResult,
    "doctor": DoctorResult,
    "enroll": EnrollResult,
    "service": ServiceResult,
}
WORDS = {"service": ("service", "status")}
"""How a verb is called that is more than one word."""


def schema_of(result: type[CommandResult]) -> str:
    """Return the JSON Schema of what `--json` prints."""
    return json.dumps(result.model_json_schema(mode="serialization"), indent=2) + "\n"


@pytest.mark.parametrize("verb", RESULTS)
def test_the_schema_of_a_verb_is_the_golden_one(verb: str) -> None:
    assert schema_of(RESULTS[verb]) == (GOLDEN / f"{verb}.schema.json").read_text()


# Of what there is to close tells test_opened.py.
@pytest.mark.parametrize("verb", sorted(RESULTS.keys() - {"close"}))
def test_what_a_verb_prints_keeps_to_its_schema_and_is_one_line(verb: str, machine: Machine) -> None:
    ran = machine.run(*WORDS.get(verb, (verb,)), "--json")
    assert ran.stdout.count("\n") == 1
    printed = json.loads(ran.stdout)
    assert printed["schema"] == 1
    jsonschema.validate(printed, json.loads((GOLDEN / f"{verb}.schema.json").read_text()))
    assert ran.stderr == ""


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, model in RESULTS.items():
        (GOLDEN / f"{name}.schema.json").write_text(schema_of(model))
