"""Directories are opened from afar only below what the laptop's configuration names, and closed again."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from client.guard.guarded import Guarded, guarded, opened, refusal
from opencode_connected import processes, settings
from opencode_connected.agents.opened import OpenedDirectories
from opencode_connected.agents.opener import MAX_OPENED, DirectoryOpener
from opencode_connected.guard.gate import DOCUMENT
from opencode_connected.guard.policy import Right
from opencode_connected.guard.refusals import RequestRefused
from opencode_connected.guard.upstream import Target
from opencode_connected.openings import Openings
from opencode_connected.state import InstanceState, StateDirectory, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from opencode_connected.guard.policy import Policy

KEY = "0123456789abcdef"
NOBODY_THERE = Target("http://127.0.0.1:9", None, 2, "2.0.15")


@dataclass
class Laptop:
    """A person's home with `work`, in which may be opened from afar, and `private`, which is beside it."""

    home: Path
    settings: settings.LauncherSettings
    guard: Guarded | None = None
    opener: DirectoryOpener | None = None

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def private(self) -> Path:
        return self.home / "private"

    def launch(self, number: int, directory: Path, *, headless: bool, below: list[Path]) -> InstanceState:
        """Let a launcher run there, which is this process, and return its state."""
        pid = os.getpid()
        state = InstanceState(
            instance_id=f"{number:032x}",
            launcher_pid=pid,
            launcher_start=processes.mark_of(pid),
            started_at=now(),
            hostname=socket.gethostname(),
            cwd=str(directory),
            mode="local",
            headless=headless,
            registry_dir="/tmp/r",
            log_file=self.home / "log",
            name=f"box-{directory.name}",
            generation=2,
            directory=str(directory),
            line_key=KEY,
            open_below=[str(path) for path in below],
        )
        StateDirectory(self.settings.state_dir).write(state)
        return state

    def end(self, state: InstanceState) -> None:
        """Let a launcher end."""
        StateDirectory(self.settings.state_dir).remove(state.instance_id)

    def policy(self) -> Policy:
        """Return what a launcher that takes the line over now lets through."""
        return OpenedDirectories(self.settings, KEY).policy()

    def seen(self) -> dict[str, str | None]:
        """Return names by directory of what the policy has."""
        return {entry.path: entry.name for entry in self.policy().directories}

    async def call(self, verb: str, directory: str) -> httpx.Response:
        """Ask the guard to open or to close."""
        assert self.guard is not None
        # As ASCII: httpx would not send half a surrogate.
        body, headers = json.dumps({"directory": directory}), {"content-type": "application/json"}
        return await self.guard.client.post(f"/opencode-relay/{verb}", content=body, headers=headers)

    async def open(self, directory: Path | str) -> dict[str, Any]:
        """Open a directory."""
        answer = await self.call("open", str(directory))
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path.resolve() / "home"
    for below in ("work/api", "work/old/api", "private/keys", "workshop"):
        (home / below).mkdir(parents=True)
    (home / "work" / "out").symlink_to(home / "private")
    (home / "work" / "in").symlink_to(home / "work" / "api")
    (home / "work" / "nowhere").symlink_to(home / "work" / "gone")
    (home / "work" / "file").write_text("")
    (home / "work" / "a\nb").mkdir()
    os.mkfifo(home / "work" / "pipe")
    return home


@pytest.fixture
def person(home: Path, tmp_path: Path) -> Laptop:
    return Laptop(home, replace(settings.load({"HOME": str(home)}), state_dir=tmp_path / "state", directories=()))


@asynccontextmanager
async def reached(person: Laptop) -> AsyncIterator[Laptop]:
    """Run the guard of whoever holds the line there."""
    of_line = OpenedDirectories(person.settings, KEY)

    async def changed() -> None:
        guard.policy[0] = of_line.policy()

    def allows(directory: str) -> bool:
        return guard.policy[0].allows(directory)

    def log(line: str) -> None:
        guard.said.append(line)

    opener = DirectoryOpener(
        person.settings.state_dir,
        KEY,
        home=str(person.home),
        launchers=of_line.launchers,
        name_of=lambda directory: f"box-{directory.rpartition('/')[2]}",
        changed=changed,
        allows=allows,
        log=log,
    )
    async with guarded(NOBODY_THERE, of_line.policy(), opener) as guard:
        person.guard, person.opener = guard, opener
        yield person


@pytest.fixture
async def laptop(person: Laptop) -> AsyncIterator[Laptop]:
    """A laptop on which the service runs, reached through its guard."""
    person.launch(1, person.home, headless=True, below=[person.work])
    async with reached(person) as one:
        yield one


async def test_a_directory_is_opened_seen_and_closed(laptop: Laptop) -> None:
    api = str(laptop.work / "api")
    assert laptop.guard is not None
    assert api not in laptop.seen()
    assert await laptop.open("~/work/api") == {"directory": api, "name": "box-api", "opened": True}
    told = (await laptop.guard.client.get(DOCUMENT)).json()
    assert {"path": api, "name": "box-api", "opened": True, "afar": True} in told["directories"]
    assert {"open", "close"} <= set(told["verbs"])
    assert f"opened from afar: {api}, as 'box-api'" in laptop.guard.said
    for same in (api, f"{api}/", "~/work/api/", f"{laptop.work}/in"):
        assert await laptop.open(same) == {"directory": api, "name": "box-api", "opened": False}
    answer = await laptop.call("close", api)
    assert answer.json() == {"directory": api, "still": False}
    assert api not in laptop.seen()
    assert "not opened from afar" in refusal(await laptop.call("close", api))


OUTSIDE = [
    "",
    "~",
    "~/private",
    "~/workshop",
    "~/work/../private",
    "~/work/out",
    "~/work/out/keys",
    "~/work/out/gone",
    "~/gone",
    "~root",
    "~root/work",
    "work",
    "./work",
    "/",
    "/etc",
    "//etc",
    "/proc/self/cwd",
    "~/work\0",
    "~/" + "a" * 4000,
    "\ud800",
]


async def test_what_lies_outside_is_refused_whether_it_is_there_or_not(laptop: Laptop) -> None:
    for given in OUTSIDE:
        said = refusal(await laptop.call("open", given))
        assert "may not be opened from afar: choose a directory in or below" in said, given
        assert str(laptop.work) in said
    assert list(laptop.seen()) == [str(laptop.home)]


@pytest.mark.parametrize("given", ["file", "gone", "nowhere", "pipe", "file/deeper", "api/gone"])
async def test_what_is_no_directory_is_refused(laptop: Laptop, given: str) -> None:
    assert "is no directory of that laptop's user" in refusal(await laptop.call("open", f"~/work/{given}"))


async def test_a_directory_of_somebody_else_is_refused(person: Laptop) -> None:
    if os.geteuid() == 0:
        theirs = person.work / "api"
        os.chown(theirs, 65534, 65534)
    else:
        theirs = person.home.__class__("/usr")
    person.launch(1, person.home, headless=True, below=[person.work, theirs])
    async with reached(person) as laptop:
        assert "is no directory of that laptop's user" in refusal(await laptop.call("open", str(theirs)))


async def test_a_name_that_cannot_be_shown_is_refused(laptop: Laptop) -> None:
    assert "rename it there" in refusal(await laptop.call("open", "~/work/a\nb"))


async def test_a_link_in_the_place_of_what_was_opened_leads_nowhere(laptop: Laptop) -> None:
    api = laptop.work / "api"
    await laptop.open(api)
    held = laptop.policy()
    api.rename(laptop.work / "moved")
    api.symlink_to(laptop.private)
    for policy in (held, laptop.policy()):
        assert not policy.allows(str(api))
        assert not policy.allows(str(laptop.private))
    assert str(api) not in laptop.seen()
    assert (await laptop.call("close", str(api))).json() == {"directory": str(api), "still": False}


async def test_a_link_in_the_place_of_a_directory_above_it_leads_nowhere_either(laptop: Laptop) -> None:
    old = laptop.work / "old"
    (laptop.private / "api").mkdir()
    opened_ = (await laptop.open(old / "api"))["directory"]
    old.rename(laptop.work / "older")
    old.symlink_to(laptop.private)
    assert list(laptop.seen()) == [str(laptop.home)]
    assert not laptop.policy().allows(opened_)
    assert not laptop.policy().allows(str(laptop.private / "api"))
    old.unlink()
    (laptop.work / "older").rename(old)
    assert laptop.policy().allows(opened_), "it is what it was"


async def test_a_directory_without_a_name_is_said_to_have_none(laptop: Laptop) -> None:
    assert "a directory without a name may not be opened" in refusal(await laptop.call("open", " "))


async def test_of_a_thousand_only_so_many_stay_open(laptop: Laptop) -> None:
    wanted = [laptop.work / f"project{number}" for number in range(1000)]
    for directory in wanted:
        directory.mkdir()
    opener = laptop.opener
    assert opener is not None
    calls = (opener.open(str(each)) for each in wanted)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, RequestRefused)]
    assert (len(answers) - len(refused), len(refused)) == (MAX_OPENED, 1000 - MAX_OPENED)
    there = [path for path in laptop.seen() if path != str(laptop.home)]
    assert len(there) == MAX_OPENED
    said = refusal(await laptop.call("open", "~/work/api"))
    assert "close one first" in said
    laptop.home.__class__(there[0]).rmdir()
    assert (await laptop.open("~/work/api"))["opened"], "what is gone makes room"


async def test_one_that_is_asked_for_many_times_at_once_is_opened_once(laptop: Laptop) -> None:
    told = await asyncio.gather(*(laptop.open("~/work/api") for _ in range(20)))
    assert [each["opened"] for each in told].count(True) == 1
    assert {each["name"] for each in told} == {"box-api"}


async def test_directories_of_one_name_are_told_apart(laptop: Laptop) -> None:
    laptop.launch(2, laptop.work / "api", headless=False, below=[])
    assert (await laptop.open("~/work/old/api"))["name"] == "box-api-2"


async def test_what_a_launcher_opened_is_not_closed_from_afar(laptop: Laptop) -> None:
    launcher = laptop.launch(2, laptop.work / "api", headless=False, below=[])
    api = str(laptop.work / "api")
    assert await laptop.open(api) == {"directory": api, "name": "box-api", "opened": False}
    assert "goes when its launcher on that laptop ends" in refusal(await laptop.call("close", api))
    laptop.end(launcher)
    await laptop.open(api)
    laptop.launch(2, laptop.work / "api", headless=False, below=[])
    assert (await laptop.call("close", api)).json() == {"directory": api, "still": True}


async def test_what_is_open_outlives_the_service_and_is_seen_while_one_runs(person: Laptop) -> None:
    api = str(person.work / "api")
    service = person.launch(1, person.home, headless=True, below=[person.work])
    screen = person.launch(2, person.private, headless=False, below=[person.work])
    async with reached(person) as laptop:
        await laptop.open(api)
        laptop.end(service)
        assert api not in laptop.seen()
        assert "service install" in refusal(await laptop.call("open", api))
    person.end(screen)
    person.launch(3, person.home, headless=True, below=[person.work])
    assert person.seen() == {str(person.home): "box-home", api: "box-api"}
    person.launch(3, person.home, headless=True, below=[])
    assert person.seen() == {str(person.home): "box-home"}, "the owner allows it no more"


async def test_without_a_word_of_the_owner_nothing_is_opened(person: Laptop) -> None:
    person.launch(1, person.home, headless=True, below=[])
    async with reached(person) as laptop:
        assert 'open_below = ["~/work"]' in refusal(await laptop.call("open", "~/work/api"))
        assert list(laptop.seen()) == [str(laptop.home)]


async def test_it_takes_the_right_to_drive(laptop: Laptop) -> None:
    assert laptop.guard is not None
    laptop.guard.policy[0] = replace(laptop.policy(), rights=frozenset({Right.OBSERVE, Right.APPROVE}))
    for verb in ("open", "close"):
        answer = await laptop.call(verb, "~/work/api")
        assert (answer.status_code, answer.json()["data"]["right"]) == (403, "drive")
    assert list(laptop.seen()) == [str(laptop.home)]


async def test_another_body_or_query_is_refused(laptop: Laptop) -> None:
    assert laptop.guard is not None
    ask = laptop.guard.client.post
    for body in ({}, {"directory": 5}, {"directory": "~/work/api", "name": "x"}, {"directory": "a" * 5000}):
        assert "the body" in refusal(await ask("/opencode-relay/open", json=body))
    right = {"directory": "~/work/api"}
    assert "the query" in refusal(await ask("/opencode-relay/open?directory=/etc", json=right))
    assert "does not let" in refusal(await laptop.guard.client.put("/opencode-relay/open", json=right))
    assert list(laptop.seen()) == [str(laptop.home)]


async def test_what_cannot_be_written_down_is_not_open(laptop: Laptop) -> None:
    (laptop.settings.state_dir / "openings").write_text("in the way")
    assert "nothing was changed" in refusal(await laptop.call("open", "~/work/api"))
    assert list(laptop.seen()) == [str(laptop.home)]


def test_a_damaged_file_has_no_openings(tmp_path: Path) -> None:
    openings = Openings(tmp_path, KEY)
    assert openings.read() == []
    file = tmp_path / "openings" / f"{KEY}.json"
    file.parent.mkdir()
    for content in (b"", b"[]", b'{"openings":[{"directory":"relative","name":"x"}]}', b"\xff" * 2_000_000):
        file.write_bytes(content)
        assert openings.read() == []


async def test_opencode_1_is_said_to_be_of_one_directory() -> None:
    target = replace(NOBODY_THERE, generation=1, version="1.18.33")
    async with guarded(target, opened("/opened")) as guard:
        answer = await guard.client.post("/opencode-relay/open", json={"directory": "/opened/x"})
        assert "install OpenCode 2" in refusal(answer)
        assert not {"open", "close"} & set((await guard.client.get(DOCUMENT)).json()["verbs"])
