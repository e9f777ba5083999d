"""A day away from the desk, over three machines and through the whole chain: docs/day.md is its transcript.

After a wanted change: RENEW_GOLDEN=1 pytest tests/day.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from day.chat import Chat
from day.machines import NAMES, day
from support.chat.transcript import Tidy
from support.waiting import eventually

if TYPE_CHECKING:
    from day.machines import Day

TRANSCRIPT = Path(__file__).parents[2] / "docs" / "day.md"


@pytest.mark.timeout(600)
async def test_a_day_away_from_the_desk(tmp_path: Path, opencode_bin: Path, opencode2_bin: Path) -> None:
    with day(tmp_path, opencode_bin, opencode2_bin) as machines:
        async with machines.phone() as client:
            chat = Chat(client, Tidy(machines.places))
            cursor = await morning(chat)
            cursor = await noon(chat, machines, cursor)
            cursor = await afternoon(chat, machines, cursor)
            await evening(chat, machines, cursor)
    if os.environ.get("RENEW_GOLDEN"):
        TRANSCRIPT.write_text(chat.transcript)
    assert chat.transcript.splitlines() == TRANSCRIPT.read_text().splitlines()


async def morning(chat: Chat) -> str:
    """All is well; the day's work is given out. Return the cursor after it."""
    chat.begins("Morning: on the train")
    await chat.until(dict.fromkeys(NAMES, "idle"))
    await chat.asks("Good morning. Is everything up?", "instances")
    inbox = await chat.asks("Does anything need me?", "inbox")
    everyone = await chat.asks(
        "Ask all of them to look at the pipeline.",
        "send",
        instance="all",
        message="Look at the pipeline.",
        session="new",
    )
    assert [row["result"] for row in everyone.structured["sent"]] == ["running"] * 3
    await chat.until(dict.fromkeys(NAMES, "idle"), dict.fromkeys(NAMES, "The pipeline"))
    cursor = await chat.until_over(inbox.structured["cursor"], *NAMES)
    await chat.asks("Are they done?", "instances")
    read = await chat.asks("What does the workbox say?", "read", instance="workbox")
    assert "echo: Look at the pipeline." in read.text
    return cursor


async def noon(chat: Chat, machines: Day, cursor: str) -> str:
    """Agents ask; a turn is steered, and another message waits for its end. Return the next cursor."""
    chat.begins("Noon: in the queue of the canteen")
    chat.meanwhile("Ben sits down at the laptop, types “Deploy to staging [BASH:echo deployed]”, and leaves.")
    machines.screen.type("Deploy to staging [BASH:echo deployed]")
    eventually(lambda: "Permission" in machines.screen.text, "the ask is on the screen")
    await chat.until({"laptop": "needs-permission"}, {"laptop": "Deploy to staging"})
    asked = await chat.asks("Tell me when something needs me.", "wait", cursor=cursor)
    (ask,) = asked.structured["asks"]
    settled = await chat.asks("Yes, once.", "reply", instance="laptop", ask=ask["handle"], answer="once")
    assert "deployed" in settled.structured["text"]
    eventually(lambda: "deployed" in machines.screen.text, "the answer is on the screen")
    chat.meanwhile("The laptop's screen goes on by itself, and shows what was deployed.")

    asked = await chat.asks(
        "The desktop shall ask me for the colour of the button.",
        "send",
        instance="desktop",
        message="Paint the button. [ASK:Which colour?]",
    )
    (ask,) = asked.structured["asks"]
    answered = await chat.asks("Blue.", "reply", instance="desktop", ask=ask["id"], answer="blue")
    assert answered.structured["result"] == "done"
    cursor = await chat.until_over(cursor, "laptop", "desktop")

    chat.meanwhile("Ben is back, and types “Write the notes GATE:notes” at the laptop.")
    machines.screen.type("Write the notes GATE:notes")
    await chat.until({"laptop": "busy"})
    steered = await chat.asks(
        "The laptop shall mention the changelog, too.",
        "send",
        once=lambda: machines.model.reached("notes") and "changelog" in machines.screen.text,
        then=lambda: machines.model.release("notes"),
        instance="laptop",
        message="Mention the changelog.",
        when="steer",
    )
    assert steered.structured["result"] == "done"
    chat.meanwhile("Ben sees the message on the screen, and the answer below it.")
    await chat.until({"laptop": "idle"})

    await chat.asks(
        "The desktop and the workbox shall build.",
        "send",
        instance=["desktop", "workbox"],
        message="Build it. GATE:build",
    )
    await chat.until({"desktop": "busy", "workbox": "busy"})
    queued = await chat.asks(
        "And after that the desktop shall bump the version.",
        "send",
        instance="desktop",
        message="Bump the version.",
        when="queue",
    )
    assert queued.structured["result"] == "queued"
    cursor = await chat.until_over(cursor, "laptop")
    built = await chat.asks(
        "Tell me when the workbox is done.",
        "wait",
        then=lambda: machines.model.release("build"),
        cursor=cursor,
        instances=["workbox"],
    )
    assert [row["result"] for row in built.structured["ended"]] == ["done"]
    await chat.until({"desktop": "idle"})
    read = await chat.asks("What has the desktop done?", "read", instance="desktop", message_limit=4)
    assert "echo: Bump the version." in read.text
    return await chat.until_over(cursor, "desktop", "workbox")


async def afternoon(chat: Chat, machines: Day, cursor: str) -> str:
    """A machine sleeps; changes are reviewed and taken back. Return the next cursor."""
    chat.begins("Afternoon: in the park")
    chat.meanwhile("Somebody closes the workbox.")
    with machines.asleep():
        await chat.until({"workbox": "offline"})
        await chat.asks("Where is the workbox?", "instances", filter="workbox")
        await chat.asks("What was it at?", "read", instance="workbox")
        kept = await chat.asks(
            "It shall clean up when it is back.", "send", instance="workbox", message="Clean up.", when="asleep"
        )
        assert not machines.model.turns("Clean up.")
        waiting = await chat.asks("Does anything wait?", "inbox", cursor=cursor)
        assert waiting.structured["messages"], kept.text
    chat.meanwhile("Somebody opens it again. It connects by itself, and gets the message.")
    await chat.until_over(cursor, "workbox")
    await chat.until({"workbox": "idle"})
    read = await chat.asks("Has it cleaned up?", "read", instance="workbox", message_limit=2)
    assert "echo: Clean up." in read.text
    assert len(machines.model.turns("Clean up.")) == 1

    readme = machines.repository / "README.md"
    asked = await chat.asks(
        "Mend the typo in the laptop's README.",
        "send",
        instance="laptop",
        message=f"Mend the typo. [EDIT:{readme}=Teh=The]",
    )
    (ask,) = asked.structured["asks"]
    await chat.asks("Yes.", "reply", instance="laptop", ask=ask["id"], answer="once")
    assert readme.read_text() == "# The shop\n"
    changed = await chat.asks("Show me.", "changes", instance="laptop")
    assert "+# The shop" in changed.text
    plan = await chat.asks("No, that was a joke. Undo it.", "control", instance="laptop", action="undo")
    undone = await chat.asks(
        "Yes, undo it.", "control", instance="laptop", action="undo", plan=plan.structured["plan"]
    )
    assert undone.structured["rows"][0]["result"] == "done"
    assert readme.read_text() == "# Teh shop\n"
    renamed = await chat.asks(
        "Call that session “Shop”.", "control", instance="laptop", action="rename", value="Shop"
    )
    assert renamed.structured["rows"][0]["result"] == "done"
    return await chat.until_over(cursor, "laptop", "workbox")


async def evening(chat: Chat, machines: Day, cursor: str) -> None:
    """All that runs is stopped; nothing is left to do."""
    chat.begins("Evening: at home")
    await chat.asks(
        "The desktop and the workbox shall measure all night.",
        "send",
        instance=["desktop", "workbox"],
        message="Measure. GATE:measure",
    )
    await chat.until({"desktop": "busy", "workbox": "busy"})
    plan = await chat.asks("No, stop everything.", "control", instance="all", action="stop")
    stopped = await chat.asks("Yes, both.", "control", instance="all", action="stop", plan=plan.structured["plan"])
    assert [row["result"] for row in stopped.structured["rows"]] == ["done", "done"]
    machines.model.release("measure")
    await chat.until(dict.fromkeys(NAMES, "idle"))
    # Whether OpenCode 1 says that a turn was stopped before it says that it is over is chance.
    cursor = await chat.until_over(cursor, "desktop", "workbox")
    left = await chat.asks("Does anything need me now?", "inbox", cursor=cursor)
    assert left.structured["asks"] == left.structured["ended"] == []
    await chat.asks("Good night.", "instances")
