"""The official conformance suite's part about authorization servers: nothing fails, nothing is skipped."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import httpx

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth import enrolment
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from support.chat.conformance import install_conformance
from support.gateway.authorization import CHEAP_HASH, Clock
from support.gateway.chat_client import signing_in
from support.gateway.person import Person
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_authorization_server_conforms(tmp_path: Path) -> None:
    node, program = await asyncio.to_thread(install_conformance)
    Users(tmp_path / "users.json").add("ann", CHEAP_HASH, CAPABILITIES)
    store = Store(tmp_path / FILE_NAME)
    port = free_port()
    callback = f"http://127.0.0.1:{port}/callback"
    async with signing_in(tmp_path, store, clients={"loopback_redirects": True}) as sign_in:
        enrolment.open_window(store, minutes=10, now=Clock()())
        async with httpx.AsyncClient(verify=sign_in.trust, trust_env=False) as http:
            registered = await http.post(f"{sign_in.url}/register", json={"redirect_uris": [callback]})
        arguments = ["--url", sign_in.url, "--resource", f"{sign_in.url}/mcp", "--port", str(port)]
        suite = await asyncio.create_subprocess_exec(
            str(node),
            str(program),
            "authorization",
            *arguments,
            "--client-id",
            registered.json()["client_id"],
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(sign_in.certificate)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert suite.stdout is not None
        said = b""
        try:
            while line := await suite.stdout.readline():
                said += line
                if line.startswith(f"{sign_in.url}/authorize".encode()):
                    person = Person(sign_in.trust)
                    await person.visit(line.decode().strip())
                    async with httpx.AsyncClient(trust_env=False) as browser:
                        await browser.get(person.arrived)
            await suite.wait()
        finally:
            if suite.returncode is None:
                suite.kill()
                await suite.wait()
    store.close()

    text = said.decode()
    assert suite.returncode == 0, text
    assert "Total: 3 passed, 0 failed" in text, text
