"""A program: a chat service's client, which has nothing but the connector's URL and the tokens that it keeps.

python -m support.hosts.phone URL ROOT_CERTIFICATE DIRECTORY [NAME PASSWORD]

It reads calls, as ["send",{"instance":"laptop","message":"…"}], a line each, and prints {"progress": "…"} and
{"answer": …}, a line each. Tokens stay in DIRECTORY for the next start. Without NAME and PASSWORD there is nobody who
could log in.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx2
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, BaseModel

from support.chat.mcp_client import ToolClient
from support.gateway.person import CALLBACK, Person

if TYPE_CHECKING:
    from support.chat.mcp_client import Progress

_READ_SECONDS = 90.0
Model = TypeVar("Model", bound=BaseModel)


class Kept:
    """What the SDK's client keeps, in files: `mcp.client.auth.TokenStorage`."""

    def __init__(self, directory: Path) -> None:
        self._tokens = directory / "tokens.json"
        self._client = directory / "client.json"

    async def get_tokens(self) -> OAuthToken | None:
        return _kept(self._tokens, OAuthToken)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens.write_text(tokens.model_dump_json())

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return _kept(self._client, OAuthClientInformationFull)

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client.write_text(client_info.model_dump_json())


def _kept(file: Path, kind: type[Model]) -> Model | None:
    return kind.model_validate_json(file.read_bytes()) if file.exists() else None


async def chat(url: str, trust: ssl.SSLContext, directory: Path, person: Person | None) -> None:
    """Connect once, and make the calls of standard input one after another."""
    oauth = OAuthClientProvider(
        url,
        OAuthClientMetadata(client_name="Phone", redirect_uris=[AnyUrl(CALLBACK)]),
        Kept(directory),
        redirect_handler=person.visit if person else None,
        callback_handler=person.came_back if person else None,
    )
    async with (
        httpx2.AsyncClient(auth=oauth, verify=trust, trust_env=False, timeout=_READ_SECONDS) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        caller = ToolClient(client)
        while line := await asyncio.to_thread(sys.stdin.readline):
            tool, arguments = json.loads(line)
            answer = await caller.call(tool, on_progress=_show, **arguments)
            _say(answer={"text": answer.text, "structured": answer.structured, "is_error": answer.is_error})


def _show(progress: Progress) -> None:
    _say(progress=progress.message)


def _say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    """Chat until standard input ends."""
    url, root, directory, *login = sys.argv[1:]
    trust = ssl.create_default_context(cafile=root)
    asyncio.run(chat(url, trust, Path(directory), Person(trust, *login) if login else None))


if __name__ == "__main__":
    main()
