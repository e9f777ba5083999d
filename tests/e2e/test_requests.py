"""What people ask for from a phone, each in at most three calls whose answers fit it: see requests.toml.

golden/requests.json has for each request the calls, and the bytes of their texts. After a wanted change:
RENEW_GOLDEN=1 pytest tests/e2e/test_requests.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from support.chat.mcp_client import held_relay_client
from support.chat.transcript import Tidy, written
from support.opencodes.attached import Attached1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

GOLDEN = Path(__file__).parent / "golden" / "requests.json"
_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_name("requests.toml").read_text())
REQUESTS: list[dict[str, Any]] = _DATA["request"]
OPEN_BELOW: list[str] = _DATA["open_below"]
MAX_CALLS = 3
FITS = 1_500
"""Bytes of a text that fits a phone, unless the request says otherwise."""
ROUNDED = 50
DIFFERS = 100
"""Bytes by which a text may differ from the golden one, as numbers and names have other lengths elsewhere."""
_PLACEHOLDER = re.compile(r"\{(\d|desk)\.([\w.]+)\}")
_ENDED = re.compile(r"Over:\n<.*?\n</.*?>\n", re.DOTALL)
_GATE = re.compile(r"GATE:([\w-]+)")
_STATES = {"waits": {"needs-permission", "needs-answer"}, "runs": {"busy"}, "ends": {"idle"}}


@dataclass(frozen=True)
class Fleet:
    """Two machines of a person, before one server."""

    phone: RelayClient
    model: ScriptedModel
    machines: dict[str, Driven]

    @property
    def laptop(self) -> Driven:
        """The one with a git repository."""
        return self.machines["laptop"]

    async def are_idle(self) -> None:
        """Wait until the server knows all machines to be idle."""
        await self.are({name: {"idle"} for name in self.machines})

    async def shows(self, name: str, session: str, answer: str) -> None:
        """Wait until the server knows so much of what the model writes."""

        async def known() -> bool:
            read = await self.phone.call("read", instance=name, session=session)
            return f"echo: {answer}" in read.text

        await eventually_async(known, answer)

    async def waits_for_more(self, name: str, others: int) -> None:
        """Wait until the server knows that a machine waits for so many asks besides its first."""

        async def known() -> bool:
            rows = (await self.phone.call("instances")).structured["instances"]
            return any(row["name"] == name and f"(+{others} more)" in row.get("waits_for", "") for row in rows)

        await eventually_async(known, name)

    async def are(self, wanted: dict[str, set[str]]) -> None:
        """Wait until the server knows the machines to be in one of these states."""

        async def known() -> bool:
            rows = (await self.phone.call("instances")).structured["instances"]
            found = {row["name"]: row["state"] for row in rows}
            assert all(found.get(name) in states for name, states in wanted.items()), found
            return True

        await eventually_async(known)


def git(directory: Path, *arguments: str) -> None:
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True)


def furnished(home: OpenCodeHome) -> OpenCodeHome:
    """Have the model of this home cost a dollar a token, and a directory that may be opened."""
    (home.root / "api").mkdir()
    if OPEN_BELOW:
        own = home.root / ".config" / "opencode-relay"
        own.mkdir(mode=0o700)
        (own / "config.toml").write_text(f"open_below = {json.dumps(OPEN_BELOW)}\n")
    file = home.root / ".config" / "opencode" / "opencode.json"
    configuration = json.loads(file.read_text())
    configuration["provider"]["fake"]["models"]["fake"]["cost"] = {"input": 1_000_000, "output": 1_000_000}
    file.write_text(json.dumps(configuration))
    return home


@pytest.fixture(scope="module")
def machines(
    generation: int,
    model: ScriptedModel,
    opencode_bin: Path,
    opencode2_bin: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Driven]]:
    """A laptop with a git repository, and a desktop, both registered where the laptop is."""
    kind, binary = (Attached1, opencode_bin) if generation == 1 else (Driven2, opencode2_bin)
    repository = tmp_path_factory.mktemp("repository")
    git(repository, "init", "-q", "-b", "main")
    (repository / "tea.txt").write_text("green\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "tea")
    homes = [
        furnished(OpenCodeHome(tmp_path_factory.mktemp(name), model.base_url, binary=binary))
        for name in ("laptop", "desktop")
    ]
    with (
        kind(homes[0], repository, name="laptop") as laptop,
        kind(homes[1], tmp_path_factory.mktemp("build"), name="desktop") as desktop,
    ):
        desktop.register_at(laptop.registry, "desktop", desktop.port)
        yield {"laptop": laptop, "desktop": desktop}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(machines: dict[str, Driven], model: ScriptedModel) -> AsyncIterator[Fleet]:
    """Those machines before a server."""
    async with held_relay_client(machines["laptop"].registry) as phone:
        fleet = Fleet(phone, model, machines)
        await fleet.are_idle()
        yield fleet


def case(request: dict[str, Any]) -> Any:
    return pytest.param(request, id=request["says"])


def test_all_thirty_are_there() -> None:
    assert len({request["says"] for request in REQUESTS}) == 30


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("request_", [case(request) for request in REQUESTS])
async def test_a_request_is_met_from_a_phone(request_: dict[str, Any], fleet: Fleet) -> None:
    generation = fleet.laptop.generation
    calls = request_.get(f"calls_{generation}") or request_["calls"]
    assert 1 <= len(calls) <= MAX_CALLS
    await cleared(fleet)
    gates = _GATE.findall(json.dumps(request_))
    try:
        desk = await prepared(request_, fleet)
        told = await asked(fleet, calls, desk, gates)
    finally:
        for gate in gates:
            fleet.model.release(gate)
    compare(request_["says"], generation, told)


async def cleared(fleet: Fleet) -> None:
    """Stop what runs, and forget sessions and changes of the request before."""
    for machine in fleet.machines.values():
        machine.settle()
        machine.forget_sessions()
    git(fleet.laptop.directory, "checkout", "-q", ".")
    git(fleet.laptop.directory, "clean", "-q", "-f")

    async def forgotten() -> bool:
        listed = await fleet.phone.call("sessions")
        return not listed.structured["sessions"]

    await eventually_async(forgotten)
    await fleet.are_idle()


async def prepared(request: dict[str, Any], fleet: Fleet) -> list[str]:
    """Do what was done at the desk before; return the sessions."""
    sessions = []
    for name, text in request.get("edits", {}).items():
        (fleet.laptop.directory / name).write_text(text)
    for number, each in enumerate(request.get("desk", []), 1):
        name = each.get("machine", "laptop")
        machine = fleet.machines[name]
        sessions.append(machine.create(each["title"]))
        machine.post(sessions[-1], each["says"].replace("{directory}", str(machine.directory)))
        if each["until"] == "waits":
            before = sum(name == other.get("machine", "laptop") for other in request["desk"][: number - 1])
            eventually(lambda: len(machine.asks()) == before + 1, "it asks")  # noqa: B023 - waited for here
        elif each["until"] == "runs":
            (gate,) = _GATE.findall(each["says"])
            eventually(lambda: fleet.model.reached(gate), "the model")  # noqa: B023 - waited for here
            if begun := each["says"].partition("GATE:")[0].strip():
                await fleet.shows(name, sessions[-1], begun)
        else:
            eventually(lambda: has_ended(machine, sessions[-1]), "its end")  # noqa: B023 - waited for here
    if request.get("reboots"):
        fleet.laptop.kill()
        for gate in _GATE.findall(json.dumps(request)):
            fleet.model.release(gate)
        fleet.laptop.revive()
        eventually(lambda: not fleet.laptop.running(), "it is at rest")
        await fleet.are({"laptop": {"idle"}})
        return sessions
    await fleet.are({each.get("machine", "laptop"): _STATES[each["until"]] for each in request.get("desk", [])})
    for name, machine in fleet.machines.items():
        if (others := len(machine.asks()) - 1) > 0:
            await fleet.waits_for_more(name, others)
    return sessions


def has_ended(machine: Driven, session: str) -> bool:
    """Allow what it asks, as at the screen, and tell whether its answer is there and nothing runs."""
    for ask in machine.asks():
        machine.allow(ask)
    roles = [role for role, _ in machine.messages(session)]
    return "assistant" in roles and session not in machine.running()


async def asked(fleet: Fleet, calls: list[dict[str, Any]], desk: list[str], gates: list[str]) -> list[Any]:
    """Make the calls, hold the answers against what is expected, and return each call with the bytes of its text."""
    tidy = Tidy({str(machine.directory): "~/api" for machine in fleet.machines.values()})
    answers: list[Answer] = []
    told = []
    for call in calls:
        arguments = {name: filled(value, answers, desk) for name, value in call.get("with", {}).items()}
        answer = await answered(fleet, call, arguments, gates)
        answers.append(answer)
        assert answer.is_error == call.get("refused", False), answer.text
        missing = [words for words in call["holds"] if words not in answer.text]
        assert not missing, f"{missing} is not in: {answer.text}"
        assert len(answer.text.encode()) <= call.get("most", FITS), answer.text
        # What ended lately depends on the requests before.
        own = _ENDED.sub("", answer.text) if call["tool"] == "inbox" else answer.text
        size = len(tidy.text(own).encode())
        told.append([written(call["tool"], call.get("with", {})), round(size / ROUNDED) * ROUNDED])
    return told


async def answered(fleet: Fleet, call: dict[str, Any], arguments: dict[str, Any], gates: list[str]) -> Answer:
    """Make one call; if it `frees`, the model goes on once the message is there."""
    calling = asyncio.create_task(fleet.phone.call(call["tool"], on_progress=None, **arguments))
    if call.get("frees"):
        if message := arguments.get("message"):
            session = fleet.laptop.running()[0]
            await eventually_async(lambda: message in posted(fleet.laptop, session), "the message")
        for gate in gates:
            fleet.model.release(gate)
    return await calling


def posted(machine: Driven, session: str) -> list[str]:
    """Return the messages of a session, with those that OpenCode 2 has not begun with."""
    if not isinstance(machine, Driven2):
        return machine.prompts(session)
    with machine.service.client() as http:
        waiting = http.get(f"/api/session/{session}/inbox").raise_for_status().json()["data"]
    return machine.prompts(session) + [item["payload"]["text"] for item in waiting]


def filled(value: Any, answers: list[Answer], desk: list[str]) -> Any:
    """Put in what a model would take from an answer's text, or the person knows from the desk."""
    if not isinstance(value, str):
        return value

    def take(found: re.Match[str]) -> str:
        if found[1] == "desk":
            return desk[int(found[2])]
        answer = answers[int(found[1]) - 1]
        place: Any = answer.structured
        for step in found[2].split("."):
            place = place[int(step)] if isinstance(place, list) else place[step]
        assert str(place) in answer.text, f"{found[0]} is not in the text: {answer.text}"
        return str(place)

    return _PLACEHOLDER.sub(take, value)


def compare(says: str, generation: int, told: list[Any]) -> None:
    """Hold calls and bytes against the golden file, or write them there."""
    name = f"OpenCode {generation}"
    if os.environ.get("RENEW_GOLDEN"):
        renewed = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        renewed.setdefault(says, {})[name] = told
        order = [request["says"] for request in REQUESTS]
        kept = {each: renewed[each] for each in order if each in renewed}
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(as_text(kept))
        golden.cache_clear()
    agreed = golden()[says][name]
    assert [call for call, _ in told] == [call for call, _ in agreed]
    for (call, size), (_, before) in zip(told, agreed, strict=True):
        assert abs(size - before) <= max(DIFFERS, before // 10), f"{call}: {before} bytes are {size} now"


@cache
def golden() -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = json.loads(GOLDEN.read_text())
    return found


def as_text(kept: dict[str, Any]) -> str:
    """Return JSON with a line for each call."""
    text = json.dumps(kept, ensure_ascii=False, indent=1)
    return re.sub(r"\[\n\s*(\".*\"),\n\s*(\d+)\n\s*\]", r"[\1, \2]", text) + "\n"
