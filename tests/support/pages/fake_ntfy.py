"""An ntfy server, as far as a publisher sees it: topics, tokens, and messages that take each other's place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from support.pages.fake_receiver import Receiver


class FakeNtfy:
    """Reads what a `Receiver` got as ntfy 2.16 does."""

    def __init__(self, server: Receiver, topic: str, token: str) -> None:
        self._server = server
        self._topic = topic
        self._token = token

    @property
    def shown(self) -> dict[str, dict[str, Any]]:
        """What a phone that subscribed to the topic shows now, by sequence id."""
        shown: dict[str, dict[str, Any]] = {}
        for request in self._server.got:
            if request.headers.get("authorization", "") != f"Bearer {self._token}":
                raise web.HTTPForbidden
            if request.method == "PUT":
                topic, sequence_id, verb = request.path.strip("/").split("/")
                assert (topic, verb) == (self._topic, "clear")
                shown.pop(sequence_id, None)
            else:
                assert (request.method, request.path) == ("POST", "/")
                message = json.loads(request.body)
                assert message.pop("topic") == self._topic
                shown[message.pop("sequence_id")] = message
        return shown
