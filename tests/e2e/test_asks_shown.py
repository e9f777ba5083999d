"""What a person is shown of an ask is what would happen: whole, with nothing hidden, and so for `always`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from support.chat.mcp_client import held_relay_client
from support.fleet.registry import register, registration
from support.opencodes.opencode import ServedOpenCode
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.opencode import OpenCodeHome

# What `always` means to OpenCode 2 is in `test_opencode2`.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.generations(1)]


@pytest.fixture(scope="module")
def desk(home: OpenCodeHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOpenCode]:
    """An OpenCode of these tests' own: what `always` allows, it allows until it ends."""
    with ServedOpenCode(home, tmp_path_factory.mktemp("desk")) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk_client(desk: ServedOpenCode, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RelayClient]:
    directory = tmp_path_factory.mktemp("desk-registry") / "registry"
    register(directory, registration("desk", desk.port, cwd=str(desk.cwd)))
    async with held_relay_client(directory) as client:
        yield client


@pytest.fixture
def own_client(desk_client: RelayClient, desk: ServedOpenCode) -> Iterator[RelayClient]:
    """A client of the server that drives the desk; what still waits there at the test's end is rejected."""
    yield desk_client
    with desk.client() as http:
        for ask in http.get("/permission").json():
            http.post(f"/permission/{ask['id']}/reply", json={"reply": "reject"})
        eventually(lambda: http.get("/session/status").json() == {}, "nothing runs any more", within=60)


async def call(client: RelayClient, tool: str, **arguments: object) -> Answer:
    return await client.call(tool, on_progress=None, instance="desk", **arguments)


async def asked(client: RelayClient, message: str, session: str = "new") -> tuple[dict[str, Any], Answer]:
    """Send what makes the agent ask; return its one ask and the whole answer."""
    answer = await call(client, "send", message=message, session=session)
    (ask,) = answer.structured["asks"]
    return dict(ask), answer


async def test_what_hides_in_a_command_is_told_wherever_the_command_is_shown(own_client: RelayClient) -> None:
    command = f"curl g\u0456thub.com gi\u200cthub.com{' ' * 6000}; rm -rf\u2003precious"
    told = "curl g⟨Cyrillic: \u0456⟩thub.com gi\\u200cthub.com ⟨6,000 blanks⟩ ; rm -rf\\u2003precious"
    ask, sent = await asked(own_client, f"[BASH:{command}]")
    (row,) = (await own_client.call("instances")).structured["instances"]
    assert f"command: {told}" in sent.text
    assert ask["summary"] == f"bash {told}"
    assert row["waits_for"] == f"bash {told}"
    for answer in (await call(own_client, "reply"), await call(own_client, "read", session=ask["session"])):
        assert f"command: {told}" in answer.text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("curl a; curl b; curl c; rm -rf precious", "bash curl a; curl b; curl c; rm -rf precious"),
        ("curl a | sh && rm x", "bash curl a | sh && rm x"),
        ("curl a\nrm -rf precious", "bash curl a ⏎ rm -rf precious"),
    ],
)
async def test_instances_shows_a_whole_command_with_its_operators(
    own_client: RelayClient, command: str, shown: str
) -> None:
    ask, _ = await asked(own_client, f"[BASH:{command}]")
    listed = await own_client.call("instances")
    (row,) = listed.structured["instances"]
    assert row["waits_for"] == shown
    assert f"({shown})" in listed.text
    assert ask["session"] in listed.text


async def test_instances_marks_where_a_command_is_cut(own_client: RelayClient) -> None:
    await asked(own_client, f"[BASH:curl {'a' * 300}; rm -rf precious]")
    (row,) = (await own_client.call("instances")).structured["instances"]
    assert row["waits_for"].startswith("bash curl aaa")
    assert row["waits_for"].endswith("a…")


async def test_always_allows_what_its_words_say_and_asks_again_for_the_rest(
    own_client: RelayClient, desk: ServedOpenCode
) -> None:
    ask, sent = await asked(own_client, "[BASH:echo one]")
    assert "echo * (with any arguments, and its output redirected into any file, also outside of the" in sent.text
    assert "Asked again is for other commands beside or inside it" in sent.text
    assert (await call(own_client, "reply", ask=ask["id"], answer="always")).structured["result"] == "done"
    inside, outside = desk.cwd / "redirected", desk.cwd.parent / "redirected-outside"
    for file in (inside, outside):
        assert not file.exists()
        unasked = await call(own_client, "send", message=f"[BASH:echo any words > {file}]", session="new")
        assert unasked.structured["result"] == "done"
        assert file.read_text() == "any words\n"
    never = desk.cwd / "never"
    for command in (f"echo x && touch {never}", f"echo x | tee {never}", f"echo $(touch {never})", "LC_ALL=C echo x"):
        again, _ = await asked(own_client, f"[BASH:{command}]")
        assert again["summary"] == f"bash {command}"
        assert not (await call(own_client, "reply", ask=again["id"], answer="reject")).is_error
    assert not never.exists()


async def test_always_for_an_edit_is_said_to_be_for_every_edit(own_client: RelayClient, desk: ServedOpenCode) -> None:
    _, sent = await asked(own_client, f"[WRITE:{desk.cwd / 'one'}=text]")
    assert "`always` would also allow, until that OpenCode ends: * (every edit, whatever it is for)" in sent.text


async def test_a_long_edit_is_outlined_and_approved_only_after_it_was_listed_whole(
    own_client: RelayClient, desk: ServedOpenCode
) -> None:
    file = desk.cwd / "long.txt"
    old = "\n".join(f"old line {number} {'x' * 30}" for number in range(1000))
    new = "\n".join(f"new line {number} {'y' * 30}" for number in range(1000))
    file.write_text(old)
    with desk.client() as http:  # an edit needs the file to have been read in its session
        session = http.post("/session", json={}).json()["id"]
    ask, sent = await asked(own_client, f"[READ:{file}] [EDIT:{file}={old}={new}]", session)
    for answer in (sent, await call(own_client, "reply"), await call(own_client, "read", session=session)):
        assert str(file) in answer.text
        assert "1,000 added, 1,000 removed" in answer.text
        assert "-old line 0 x" in answer.text
        assert "+new line 999 y" in answer.text
        assert "new line 500" not in answer.text
        assert f"Not shown whole: {ask['handle']}." in answer.text
        assert answer.structured["asks"] == [ask]
        assert ask.keys() == {"id", "handle", "kind", "session", "summary"}
    for word in ("once", "always"):
        refused = await call(own_client, "reply", ask=ask["id"], answer=word)
        assert refused.is_error
        assert "nothing is approved unseen. Call `reply` with `ask`" in refused.text
    assert file.read_text() == old
    whole = await call(own_client, "reply", ask=ask["id"])
    assert whole.structured["asks"] == [ask]
    for line in (*old.splitlines(), *new.splitlines()):
        assert line in whole.text
    assert (await call(own_client, "reply", ask=ask["id"], answer="once")).structured["result"] == "done"
    assert file.read_text() == new


async def test_a_long_ask_is_rejected_without_being_listed(own_client: RelayClient, desk: ServedOpenCode) -> None:
    file = desk.cwd / "never-written"
    ask, _ = await asked(own_client, f"[WRITE:{file}={'text ' * 2000}]")
    assert not (await call(own_client, "reply", ask=ask["id"], answer="reject")).is_error
    assert not file.exists()
    assert (await call(own_client, "reply")).text == "“desk” waits for nothing."


async def test_an_ask_that_is_not_there_cannot_be_listed_alone(own_client: RelayClient) -> None:
    refused = await call(own_client, "reply", ask="per_0000000000000000000000000")
    assert refused.is_error
    assert "does not wait for" in refused.text
