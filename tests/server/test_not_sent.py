"""What breaks before a message is posted: it is said that nothing was sent, so that it may be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, InstanceError, Unreachable, Unresponsive
from opencode_fleet.sessions import NEW_SESSION
from support.opencodes.fake_agent import FakeAgent, fake_fleet

if TYPE_CHECKING:
    from collections.abc import Callable


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


@pytest.mark.parametrize("wanted", [None, NEW_SESSION, "a session"])
@pytest.mark.parametrize("kind", [Unreachable, Unresponsive, BadAnswer])
async def test_a_line_that_breaks_before_the_message_is_posted_leaves_no_doubt(
    kind: Callable[[str], InstanceError], wanted: str | None
) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.trouble = kind("the connection to “laptop” broke")
        with pytest.raises(InstanceError) as raised:
            await Driver(fleet, 30).send(instance, "hello", wanted, ignored)
        assert str(raised.value) == "the connection to “laptop” broke; nothing was sent"
        assert not raised.value.is_doubtful
        assert not agent.posted
        (told,) = await Driver(fleet, 30).send_to_all([instance], "hello", None)
        assert str(told).endswith("nothing was sent")
