"""Records of OpenCode 2 without an OpenCode 2: every session that is asked for is there."""

from __future__ import annotations

from typing import cast

from opencode_fleet.agents.http import AgentClient
from opencode_fleet.agents.opencode2.records import Calls, Records
from opencode_fleet.errors import NotFound
from opencode_fleet.transports.base import Endpoint


class FakeCalls:
    """Answers what the decoder looks up."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client

    async def data(self, name: str, session_id: str, *_ids: str, **_options: object) -> object:
        if name != "session.get":
            raise NotFound(name)
        return {"id": session_id, "location": {"directory": "/home/ann/api"}, "title": "as it is stored"}


def fake_records(client: AgentClient) -> Records:
    """Return records that hold nothing yet."""
    return Records(cast("Calls", FakeCalls(client)))


def idle_client() -> AgentClient:
    """Return a client that is not used to call anybody. Close it."""
    return AgentClient(Endpoint("laptop", "http://127.0.0.1:9", "laptop.example", "/home/ann/api"), 1.0)
