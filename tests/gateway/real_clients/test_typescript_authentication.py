"""The TypeScript SDK's OAuth client proves itself in each way that it knows."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth import enrolment
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from support.clients.installed import PROGRAMS, typescript_sdk
from support.gateway.authorization import CALLBACK, CHEAP_HASH, Clock, answer_of
from support.gateway.chat_client import signing_in
from support.gateway.client_keys import ClientKey
from support.gateway.person import Person

if TYPE_CHECKING:
    from pathlib import Path

KEY = ClientKey()


@pytest.mark.parametrize(
    ("asked", "method"),
    [
        ({}, "none"),
        ({"token_endpoint_auth_method": "none"}, "none"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "client_secret_post"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "client_secret_basic"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks": KEY.key_set()}, "private_key_jwt"),
    ],
    ids=["nothing asked", "none", "post", "basic", "signed"],
)
async def test_it_gets_in_and_refreshes(tmp_path: Path, asked: dict[str, Any], method: str) -> None:
    node, modules = await asyncio.to_thread(typescript_sdk, 1)
    Users(tmp_path / "users.json").add("ann", CHEAP_HASH, CAPABILITIES)
    store = Store(tmp_path / FILE_NAME)
    enrolment.open_window(store, minutes=10, now=Clock()())
    async with signing_in(tmp_path, store) as sign_in:
        program = await asyncio.create_subprocess_exec(
            str(node),
            str(PROGRAMS / "typescript_authentication.mjs"),
            str(modules),
            sign_in.url,
            f"{sign_in.url}/mcp",
            CALLBACK,
            json.dumps(asked),
            *([KEY.private_pem] if method == "private_key_jwt" else []),
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(sign_in.certificate)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            person = Person(sign_in.trust)
            await person.visit((await program.stdout.readline()).decode().strip())
            code = answer_of(person.arrived)["code"]
            said, _ = await program.communicate(f"{code}\n".encode())
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
    store.close()

    given = json.loads(said)
    assert given["clientInformation"]["token_endpoint_auth_method"] == method
    assert ("client_secret" in given["clientInformation"]) == method.startswith("client_secret")
    assert given["second"]["access_token"] != given["first"]["access_token"]
