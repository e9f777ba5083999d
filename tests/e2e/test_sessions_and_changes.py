"""`sessions`, `changes` and `read` with details: what real OpenCode of both generations tells, through the guard."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from support.chat.mcp_client import held_relay_client
from support.opencodes.attached import Attached1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="module")


def git(directory: Path, *arguments: str) -> None:
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(
    generation: int,
    model: ScriptedModel,
    opencode_bin: Path,
    opencode2_bin: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Driven]:
    """OpenCode at work in a git repository, in which the person has changed a file; it asks for nothing."""
    binary = opencode_bin if generation == 1 else opencode2_bin
    home = OpenCodeHome(tmp_path_factory.mktemp("home"), model.base_url, binary=binary, asks=False)
    directory = tmp_path_factory.mktemp("repository")
    git(directory, "init", "-q", "-b", "main")
    (directory / "old.txt").write_text("".join(f"line {number}\n" for number in range(100)))
    git(directory, "add", ".")
    git(directory, "commit", "-q", "-m", "first")
    git(directory, "checkout", "-q", "-b", "fix")
    kind = Attached1 if generation == 1 else Driven2
    with kind(home, directory) as driven:
        yield driven


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phone(repository: Driven) -> AsyncIterator[RelayClient]:
    """A client of a server before that OpenCode."""
    async with held_relay_client(repository.registry) as client:
        yield client


async def call(phone: RelayClient, tool: str, **arguments: object) -> dict[str, Any]:
    answer = await phone.call(tool, on_progress=None, **arguments)
    assert not answer.is_error, answer.text
    return answer.structured | {"_text": answer.text}


async def test_what_was_changed_is_told_by_both_generations(phone: RelayClient, repository: Driven) -> None:
    old, new = repository.directory / "old.txt", repository.directory / "new.txt"
    old.write_text(old.read_text().replace("line 50\n", "line fifty\n"))
    todo = " [TODO:]" if repository.generation == 1 else ""
    message = f"[WRITE:{new}=hello] [EDIT:{old}=line 70=line seventy]{todo}"
    sent = await call(phone, "send", instance="laptop", message=message, session="new")
    assert sent["result"] == "done"

    tree = await call(phone, "changes", instance="laptop")
    assert (tree["branch"], tree["default_branch"]) == ("fix", "main")
    assert tree["files"] == [
        {"file": "new.txt", "status": "added", "additions": 1},
        {"file": "old.txt", "status": "modified", "additions": 2, "deletions": 2},
    ]
    assert "+hello" in tree["diff"]
    assert "-line 50\n+line fifty\n" in tree["diff"]
    assert "line 30\n" not in tree["diff"]
    # OpenCode 2 keeps no list of what there is to do.
    assert [entry.get("status") for entry in tree.get("todos", [])] == (["pending"] if todo else [])

    async def has_turn() -> bool:
        # Generation 1 sums a turn up a little after its end.
        turn = await call(phone, "changes", instance="laptop", session=sent["session"])
        assert [row["file"] for row in turn["files"]] == ["new.txt", "old.txt"]
        assert "+line seventy" in turn["diff"]
        assert "fifty\n+" not in turn["diff"]
        return "-line 70" in turn["diff"]

    await eventually_async(has_turn)
    one = await call(phone, "changes", instance="laptop", file="new.txt")
    assert [row["file"] for row in one["files"]] == ["new.txt"]


async def test_calls_are_read_with_what_they_changed_and_older_messages_by_page(
    phone: RelayClient, repository: Driven
) -> None:
    old = repository.directory / "old.txt"
    message = f"[EDIT:{old}=line 10=line ten]"
    session = (await call(phone, "send", instance="laptop", message=message, session="new"))["session"]
    await call(phone, "send", instance="laptop", message="second words", session=session)
    plain = await call(phone, "read", instance="laptop", session=session, message_limit=50)
    assert "+line ten" not in plain["_text"]
    assert " UTC]\nuser: [EDIT" in plain["_text"]
    assert all(row["at"] > 1e9 for row in plain["messages"])
    assert "older" not in plain
    detailed = await call(phone, "read", instance="laptop", session=session, message_limit=50, details=True)
    assert "    -line 10" in detailed["_text"]
    assert "    +line ten" in detailed["_text"]
    page = await call(phone, "read", instance="laptop", session=session, message_limit=2)
    ids = [row["id"] for row in page["messages"]]
    while "older" in page:
        page = await call(phone, "read", instance="laptop", session=session, message_limit=2, before=page["older"])
        ids = [*(row["id"] for row in page["messages"]), *ids]
    assert ids == [row["id"] for row in plain["messages"]]


async def test_sessions_are_listed_with_what_they_used_and_found_by_their_titles(
    phone: RelayClient, repository: Driven
) -> None:
    sent = await call(phone, "send", instance="laptop", message="counted words", session="new")
    other = repository.create("A wholly different Matter")

    async def is_listed() -> bool:
        listed = await call(phone, "sessions")
        rows = {row["id"]: row for row in listed["sessions"]}
        assert rows.keys() >= {sent["session"], other}
        used = rows[sent["session"]]
        assert (used["state"], used["instance"]) == ("idle", "laptop")
        return bool(used["tokens"] > 0 and used["title"] == "A scripted title")

    await eventually_async(is_listed)
    found = await call(phone, "sessions", text="different mat")
    assert [row["id"] for row in found["sessions"]] == [other]
    assert (await call(phone, "sessions", instance="laptop", text="no such title"))["sessions"] == []
