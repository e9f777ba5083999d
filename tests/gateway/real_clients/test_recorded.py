"""Clients that cannot be run here, by the shape of their requests as public sources tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clients.front import PERSON, TOOLS
from support.clients.recorded import SHAPES
from support.clients.recorded_client import RecordedClient

if TYPE_CHECKING:
    from support.clients.front import Front
    from support.clients.recorded import Shape


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_recorded_client_goes_the_whole_way(front: Front, shape: Shape) -> None:
    front.allow_clients()
    with RecordedClient(shape, front) as client:
        client.discover()
        client.introduce_itself()
        client.ask()
        front.close_window()
        session = front.session()
        assert (session.login, session.client_name) == (PERSON, shape.metadata["client_name"])
        assert shape.document in {None, session.client_id}

        assert client.tools() >= TOOLS

        client.refresh()
        assert client.tools() >= TOOLS
        assert front.session().id == session.id

        client.revoke()
        assert client.is_refused()
        assert front.sessions() == []
