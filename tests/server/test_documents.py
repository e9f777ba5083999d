"""What pages are told of asks, turns and ends: all, bounded and revealed, under a digest that any change changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.agent import Capability
from opencode_fleet.errors import Unreachable, Unresponsive
from opencode_fleet.model import MAX_ASK_SHOWN, Option, Permission, Question, QuestionItem, Status
from opencode_fleet.open_work import Open, OpenAsk, OpenWork
from opencode_journal.entries import ASK_OPENED, ASK_SETTLED, TURN_ENDED, TURN_STARTED
from opencode_mcp.caller import Caller
from opencode_mcp.documents import MAX_ASKS, MAX_ENDS, Documents, NoSuchAsk
from opencode_mcp.tools.reply import reply
from opencode_mcp.views.asks import MAX_REVEALED
from opencode_pages.documents import AskItem, AskPart, Choice
from support.fleet.fake_relay import fake_copy, fake_relay, text_of
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.model import Ask
    from support.fleet.fake_relay import FakeRelay

ANN = Caller("ann", frozenset({"observe", "approve", "drive"}))
HOSTILE = "<script>x</script>\x1b[2J\u202egnp.exe\u200b ⟨fine⟩"
DIFF = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new"
DIGEST = "b7be46f228a7bc5868f1ee6f4c439c8b"
BASH = Permission(
    id="per_1",
    session_id="ses_1",
    action="bash",
    patterns=("git push origin",),
    is_split=True,
    details=(("command", "git push origin && rm -rf ."), ("note", "why")),
    always=("git push *",),
    always_means="until that OpenCode ends",
)


def asking(ask: Ask, agent: FakeAgent | None = None, title: str = "Fix the login") -> FakeAgent:
    """Return an agent one of whose sessions waits for this ask."""
    agent = agent or FakeAgent("/home/ann/api")
    agent.made[ask.session_id] = replace(agent.add_session("/home/ann/api", title), id=ask.session_id)
    agent.open[ask.id], agent.statuses[ask.session_id] = ask, Status()
    return agent


async def recorded(relay: FakeRelay, kind: str = ASK_OPENED, count: int = 1) -> None:
    await eventually_async(lambda: len(relay.entries(kind)) >= count, f"{kind} is recorded")


async def test_all_of_a_permission_stands_in_its_document(tmp_path: Path) -> None:
    async with fake_relay(tmp_path, laptop=asking(BASH)) as relay:
        await recorded(relay)
        document = await Documents(relay.face).ask_of("laptop", "per_1")

        assert (document.kind, document.instance, document.title) == ("permission", "laptop", "Fix the login")
        assert (document.state, document.whole, document.away) == ("open", True, False)
        assert document.directory == "/home/ann/api"
        assert document.summary == "bash git push origin && rm -rf ."
        assert document.since == pytest.approx(relay.entries(ASK_OPENED)[0].at, abs=1)
        assert document.parts == (
            AskPart(label="permission", text="bash"),
            AskPart(label="command", text="git push origin && rm -rf .", kind="command"),
            AskPart(label="note", text="why"),
        )
        assert document.always == ("git push *",)
        assert document.always_means.startswith("until that OpenCode ends; with any arguments, and its output")
        assert (document.always_refused, document.reason_is_message) == ("", True)
        assert document == await Documents(relay.face).ask(document.handle)


async def test_a_diff_is_told_as_one_and_reasons_reach_who_takes_them(tmp_path: Path) -> None:
    edit = replace(BASH, action="edit", is_split=False, patterns=("x",), details=(("diff of x", DIFF),))
    agent = asking(edit, FakeAgent("/home/ann/api", can=frozenset({Capability.REASONS})))
    agent.rights = frozenset({"approve"})
    async with fake_relay(tmp_path, laptop=agent) as relay:
        (await relay.fleet.find_live("laptop"))._connection.rights = frozenset({"approve"})
        document = await Documents(relay.face).ask_of("laptop", "per_1")
        assert [(part.label, part.kind) for part in document.parts] == [
            ("permission", "text"),
            ("for", "text"),
            ("diff of x", "diff"),
        ]
        assert document.always_refused == "the owner of that machine does not let it through from afar"
        assert document.reason_is_message is False


async def test_a_digest_is_the_same_in_every_process_and_another_for_whatever_changed(tmp_path: Path) -> None:
    agent = asking(BASH)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        documents = Documents(relay.face)
        # Written down, as a new process would have another seed for what Python calls a hash.
        assert (await documents.ask_of("laptop", "per_1")).digest == DIGEST
        seen = {DIGEST}
        for changed in (
            replace(BASH, details=(("command", "git push origin && rm -rf /"), ("note", "why"))),
            replace(BASH, details=(("command", "git push origin && rm -rf ."), ("note", "wh\ud800y"))),
            replace(BASH, always=("*",)),
            replace(BASH, always_refused="no"),
            replace(BASH, is_split=False),
            replace(BASH, patterns=("git push", "origin")),
            Question(id="per_1", session_id="ses_1"),
        ):
            agent.open["per_1"] = changed
            seen.add((await documents.ask_of("laptop", "per_1")).digest)
        assert len(seen) == 8
    async with fake_relay(None, desktop=asking(BASH)) as other:
        assert (await Documents(other.face).ask_of("desktop", "per_1")).digest not in seen


async def test_questions_come_with_their_options_and_are_answered_by_what_was_shown(tmp_path: Path) -> None:
    items = (
        QuestionItem(question="Which?", options=(Option("R\u200bed", "warm", "red!"), Option("Blue")), multiple=True),
    )
    agent = asking(Question(id="que_1", session_id="ses_1", items=items))
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay)
        document = await Documents(relay.face).ask_of("laptop", "que_1")
        choices = (Choice(label="R\\u200bed", description="warm"), Choice(label="Blue"))
        assert document.items == (AskItem(question="Which?", options=choices, multiple=True),)
        assert document.parts == ()

        page = relay.face.of(replace(ANN, page="https://r.example", shown=document.digest))
        await reply(page, Notes().context(), "laptop", "R\\u200bed, Blue", document.handle)
        assert agent.said == [[["red!", "Blue"]]]


async def test_nothing_in_a_document_hides_and_what_is_too_large_is_not_whole(tmp_path: Path) -> None:
    ask = replace(BASH, details=(("command", HOSTILE), (HOSTILE, "x")), always=(HOSTILE,))
    agent = asking(ask, title=HOSTILE)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        documents = Documents(relay.face)
        shown = (await documents.ask_of("laptop", "per_1")).model_dump_json()
        assert "<script>x</script>\\\\x1b[2J\\\\u202egnp.exe\\\\u200b" in shown
        assert not {"\x1b", "\u202e", "\u200b", "⟨fine⟩"} & {*shown, *([] if "⟨fine⟩" not in shown else ["⟨fine⟩"])}

        agent.open["per_1"] = replace(ask, details=(("command", "x" * MAX_ASK_SHOWN),))
        large = await documents.ask_of("laptop", "per_1")
        assert large.whole is False
        assert [part.label for part in large.parts] == ["outline"]
        assert "100,000 characters" in large.parts[0].text
        assert len(large.model_dump_json()) < 20_000

        # What shows much larger than it is, too.
        agent.open["per_1"] = replace(ask, details=(("command", "\u202ex" * (MAX_REVEALED // 7)),))
        assert (await documents.ask_of("laptop", "per_1")).whole is False
        agent.open["per_1"] = replace(ask, is_whole=False)
        assert (await documents.ask_of("laptop", "per_1")).whole is False


async def test_who_settled_an_ask_and_how_is_told_afterwards(tmp_path: Path) -> None:
    agent = FakeAgent("/home/ann/api")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        documents, face = Documents(relay.face), relay.face.of(ANN)
        laptop = await relay.fleet.find_live("laptop")
        (first,) = (await face.driver.send(laptop, "ask me", None, Notes().take)).asks
        handle = (await documents.ask_of("laptop", first.id)).handle
        await recorded(relay)
        await face.driver.reply(laptop, first.id, "once", Notes().take, lambda _ask: True)
        settled = await documents.ask(handle)
        assert (settled.state, settled.settled, settled.whole) == ("settled", "allowed once, by ann", False)
        assert (settled.kind, settled.summary, settled.parts) == ("permission", "bash ask me", ())
        await recorded(relay, ASK_SETTLED)
        assert await documents.ask(handle) == settled

        (second,) = (await face.driver.send(laptop, "question", None, Notes().take)).asks
        await recorded(relay, count=2)
        assert isinstance(second, Question)
        await agent.answer(second, [["Blue"]])  # as at the screen
        await recorded(relay, ASK_SETTLED, 2)
        there = await documents.ask_of("laptop", second.id)
        assert (there.kind, there.state, there.settled) == ("question", "settled", "answered")


@pytest.mark.parametrize("error", [Unreachable("gone", refused=True), Unresponsive("hangs")])
async def test_of_a_machine_that_is_away_the_journal_tells(tmp_path: Path, error: Exception) -> None:
    agent = asking(BASH)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay)
        handle = (await Documents(relay.face).ask_of("laptop", "per_1")).handle
    agent.trouble = error  # type: ignore[assignment] # an InstanceError, both of them
    async with fake_relay(tmp_path, laptop=agent) as relay:
        document = await Documents(relay.face).ask(handle)
        assert (document.state, document.away, document.whole) == ("away", True, False)
        assert (document.summary, document.title) == ("bash git push origin && rm -rf .", "Fix the login")
        (row,) = (await Documents(relay.face).inbox()).asks
        assert (row.handle, row.away) == (handle, True)


async def test_what_a_machine_says_counts_more_than_what_the_journal_has_as_open(tmp_path: Path) -> None:
    # Another copy of the server leads, and has not written yet that the ask was settled.
    async with fake_copy(tmp_path, {"laptop": FakeAgent()}, may_lead=False) as relay:
        await relay.fleet.find_live("laptop")
        relay.journal.append(ASK_OPENED, "laptop", "ses_1", "per_1", {"about": "bash ls"})
        OpenWork(relay.journal).set("laptop", Open(asks={"per_1": OpenAsk(1.0, "ses_1", about="bash ls")}))
        document = await Documents(relay.face).ask_of("laptop", "per_1")
        assert (document.state, document.settled, document.summary) == ("settled", "", "bash ls")


async def test_an_agent_that_stops_answering_leaves_what_was_seen_as_away(tmp_path: Path) -> None:
    agent = asking(BASH)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay)
        before = await Documents(relay.face).ask_of("laptop", "per_1")
        agent.trouble = Unresponsive("hangs")
        document = await Documents(relay.face).ask_of("laptop", "per_1")
        assert (document.state, document.digest, document.parts) == ("away", before.digest, before.parts)


async def test_what_nobody_knows_is_said_to_be_unknown_and_gets_no_handle(tmp_path: Path) -> None:
    async with fake_relay(tmp_path, laptop=asking(BASH)) as relay:
        documents = Documents(relay.face)
        for name, ask_id in (("laptop", "per_2"), ("lap", "per_1"), ("nobody", "per_1"), ("laptop", HOSTILE)):
            with pytest.raises(NoSuchAsk, match="nothing is known of an ask") as refused:
                await documents.ask_of(name, ask_id)
            assert "\x1b" not in str(refused.value)
            assert not relay.journal.latest_handle("a", name, ask_id)
        for handle in ("a99", "s1", "", "per_1", HOSTILE):
            with pytest.raises(NoSuchAsk, match="no ask has the handle"):
                await documents.ask(handle)


async def test_the_inbox_has_what_waits_what_runs_and_what_ended(tmp_path: Path) -> None:
    busy, idle = FakeAgent("/a"), FakeAgent("/b")
    async with fake_relay(tmp_path, busy=busy, idle=idle) as relay:
        face, documents = relay.face, Documents(relay.face)
        laptop, other = await relay.fleet.find_live("busy"), await relay.fleet.find_live("idle")
        assert (await documents.inbox()).model_dump(exclude_defaults=True) == {"instances": 2}
        await face.driver.send(other, "hello", None, Notes().take)
        busy.gate.clear()
        sending = asyncio.create_task(face.driver.send(laptop, "work", None, Notes().take))
        await recorded(relay, TURN_STARTED, 2)
        await face.driver.send(other, "ask me", None, Notes().take)
        await recorded(relay)
        found = await documents.inbox()
        assert [(each.instance, each.summary) for each in found.asks] == [("idle", "bash ask me")]
        assert [(each.instance, each.title) for each in found.running] == [("busy", "begun from afar")]
        assert found.running[0].since == next(e.at for e in relay.entries(TURN_STARTED) if e.instance == "busy")
        assert [(each.instance, each.result) for each in found.ended] == [("idle", "done")]
        busy.gate.set()
        await sending


async def test_the_inbox_is_bounded_and_in_order(tmp_path: Path) -> None:
    agent = FakeAgent("/a")
    asks = [replace(BASH, id=f"per_{number}", session_id=f"ses_{number}") for number in range(MAX_ASKS + 5)]
    for ask in asks:
        asking(ask, agent)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        for number in range(MAX_ENDS + 5):
            relay.journal.append(TURN_ENDED, "laptop", f"ses_{number}", data={"title": HOSTILE})
        found = await Documents(relay.face).inbox()
        assert (len(found.asks), found.asks_left_out, found.running) == (MAX_ASKS, 5, ())
        assert [each.since for each in found.asks] == sorted(each.since for each in found.asks)
        assert len(found.ended) == MAX_ENDS
        assert [each.at for each in found.ended] == sorted((each.at for each in found.ended), reverse=True)
        assert "\x1b" not in found.model_dump_json()


async def test_what_a_page_shows_counts_as_shown_to_nobody_in_a_chat(tmp_path: Path) -> None:
    agent = asking(BASH)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await Documents(relay.face).ask_of("laptop", "per_1")
        refused = await reply(relay.face.of(ANN), Notes().context(), "laptop", "once", "all")
        assert "Nothing was settled." in text_of(refused)
        assert agent.decisions == []
