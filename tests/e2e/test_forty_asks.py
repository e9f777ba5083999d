"""Forty asks of one turn, one after the other; and one ask that two servers answer at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client

if TYPE_CHECKING:
    from support.chat.mcp_client import RelayClient
    from support.opencodes.driven import Driven

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ASKS = 40
ROUNDS = 3


async def test_forty_asks_in_a_row_are_each_told_and_settled_once(client: RelayClient, laptop: Driven) -> None:
    calls = "".join(f"[BASH:echo {number} >> forty.txt]" for number in range(ASKS))
    answer = await client.call("send", instance="laptop", message=calls, session="new")
    told: list[str] = []
    while answer.structured["result"] == "needs-permission":
        (ask,) = answer.structured["asks"]
        assert f"echo {len(told)} >>" in ask["summary"]
        told.append(ask["id"])
        answer = await client.call("reply", instance="laptop", ask=ask["id"], answer="once")
        assert not answer.is_error, answer.text
    assert answer.structured["result"] == "done"
    assert len(told) == len(set(told)) == ASKS
    ran = (laptop.directory / "forty.txt").read_text().split()
    assert ran == [str(number) for number in range(ASKS)]
    assert (await client.call("inbox")).structured["asks"] == []


async def test_of_two_servers_that_answer_at_once_one_settles_and_the_other_says_that_somebody_did(
    laptop: Driven,
) -> None:
    async with relay_client(laptop.registry) as one, relay_client(laptop.registry) as other:
        for number in range(ROUNDS):
            message = f"[BASH:echo {number} >> both.txt]"
            asked = await one.call("send", instance="laptop", message=message, session="new")
            (ask,) = asked.structured["asks"]
            assert ask["handle"] in (await other.call("reply", instance="laptop")).text
            answers = await asyncio.gather(
                *(each.call("reply", instance="laptop", ask=ask["id"], answer="once") for each in (one, other))
            )
            (settled,) = (answer for answer in answers if not answer.is_error)
            (refused,) = (answer for answer in answers if answer.is_error)
            assert settled.structured["result"] == "done"
            assert "settled by somebody else" in refused.text
        assert (laptop.directory / "both.txt").read_text().split() == [str(number) for number in range(ROUNDS)]
