"""The whole way of a client: from the URL that is pasted into it to the end of its login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.clients.front import PERSON, TOOLS

if TYPE_CHECKING:
    from support.clients.client import RealClient
    from support.clients.front import Front

PROGRESS = [[1, 3, "laptop 1"], [2, 3, "laptop 2"], [3, 3, "laptop 3"]]


def goes_the_whole_way(front: Front, client: RealClient) -> None:
    """Discovery, registration or document, login, consent, token, list, call, refresh, and the owner's revocation."""
    before = len(front.audit())
    front.allow_clients()
    client.connect()
    front.close_window()

    session = front.session()
    assert (session.login, session.client_name) == (PERSON, client.name)
    assert session.client_id == client.document or client.document is None
    told = [line["event"] for line in front.audit()[before:]]
    assert told.count("client-registered") == 0 if client.document else told.count("client-registered") > 0
    assert (told.count("login"), told.count("consent")) == (1, 1)
    visits = client.desktop.visits

    shown = client.tools()
    assert shown >= TOOLS
    assert "unlisted" not in shown

    called = client.call("reply", instance="laptop", steps=3)
    assert "laptop" in called.text
    assert called.progress == (PROGRESS if client.shows_progress else [])
    (line,) = (line for line in front.audit()[before:] if line["event"] == "call")
    assert (line["tool"], line["outcome"], line["client_name"]) == ("reply", "ok", client.name)

    front.let_a_day_pass()
    client.a_day_passes()
    assert client.is_let_in()
    refreshed = front.session()
    assert refreshed.id == session.id
    assert refreshed.refreshed_at > session.refreshed_at
    assert client.desktop.visits == visits, "the person was asked again"

    if client.logs_out:
        client.log_out()
        # RFC 7009: the gateway knows of it, or has to be told by its owner.
        assert (front.sessions() == []) is client.revokes
    front.revoke_sessions()
    assert client.is_shut_out()
    assert front.sessions() == []
