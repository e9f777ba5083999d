"""ntfy, of any server.

A notice is published as JSON under a sequence id made of its place, so a later one takes its place and a settled one
is cleared. Servers before 2.16 know no sequence ids: they show both, and clear nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pydantic import Field, SecretStr

from opencode_notify.errors import BadOutlet
from opencode_notify.network import Address, Network, request
from opencode_notify.settings import SenderSettings, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_notify.notice import Notice, Receipt

MAX_BYTES: Final = 4_096
"""Of a message: ntfy makes an attachment of a longer one."""
_MAX_TITLE: Final = 250
"""Characters."""
_NAME: Final = re.compile(r"[-_A-Za-z0-9]{1,64}")


class NtfySettings(SenderSettings):
    """`server` is its address, `topic` the name of a topic, `token` an access token, or '' for an open topic."""

    server: str = "https://ntfy.sh"
    topic: SecretStr = Field(min_length=1, max_length=64)
    token: SecretStr = SecretStr("")


class Ntfy:
    """A topic of a server. An open topic's name is its password."""

    def __init__(self, server: Address, topic: str, token: str, network: Network) -> None:
        self._server = server
        self._topic = topic
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._network = network

    async def send(self, notice: Notice) -> Receipt:
        """See `Outlet.send`."""
        if notice.withdrawn:
            place = self._server.below(self._topic, sequence_id(notice), "clear")
            return await request(self._network, "PUT", place, headers=self._headers)
        message: dict[str, object] = {
            "topic": self._topic,
            "sequence_id": sequence_id(notice),
            "title": notice.title[:_MAX_TITLE],
            "message": shortened(notice.body, MAX_BYTES),
            "priority": notice.priority,
        }
        if notice.url:
            message["click"] = notice.url
        return await request(
            self._network, "POST", self._server, content=json.dumps(message).encode(), headers=self._headers
        )

    async def withdraw(self, notice: Notice) -> None:
        """See `Outlet.withdraw`."""
        await self.send(replace(notice, withdrawn=True))


def sequence_id(notice: Notice) -> str:
    """Return the name of a notice's place, as ntfy takes it."""
    if _NAME.fullmatch(notice.place):
        return notice.place
    return base64.urlsafe_b64encode(hashlib.sha256(notice.place.encode()).digest()[:24]).decode()


def shortened(text: str, limit: int) -> str:
    """Return `text`, cut to `limit` bytes of UTF-8 with a visible `…`."""
    whole = text.encode()
    return text if len(whole) <= limit else whole[: limit - 3].decode(errors="ignore") + "…"


def outlet(settings: Mapping[str, object], network: Network) -> Ntfy:
    """Return the outlet. Raises `BadOutlet`."""
    given = read(NtfySettings, settings)
    server = Address.of(given.server, "server", allow_private=given.allow_private)
    topic, token = given.topic.get_secret_value(), given.token.get_secret_value()
    if not _NAME.fullmatch(topic):
        raise BadOutlet("topic: holds other characters than letters, digits, - and _")
    if not token.isascii() or not (token == "" or token.isprintable()):
        raise BadOutlet("token: holds characters that no token has")
    return Ntfy(server, topic, token, network)
