"""A person who lets a chat client in, on the gateway's own pages. It needs httpx2 and the SDK, and no gateway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import httpx2
from mcp.shared.auth import AuthorizationCodeResult

if TYPE_CHECKING:
    import ssl

CALLBACK = "https://claude.ai/api/mcp/auth_callback"
PASSWORD = "correct horse"


class Person:
    """Logs in on the gateway's pages and says yes, as a browser does without scripts.

    Args:
        trust: whom the browser trusts.
    """

    def __init__(self, trust: ssl.SSLContext, name: str = "ann", password: str = PASSWORD) -> None:
        self.trust = trust
        self.name = name
        self.password = password
        self.seen: list[str] = []
        """What the pages said."""
        self.arrived = ""
        """Where the gateway sent the browser in the end."""

    async def visit(self, url: str) -> None:
        """Go to where the client sends, log in and allow all that is ticked."""
        async with httpx2.AsyncClient(verify=self.trust, trust_env=False) as browser:
            page = await browser.get(url, follow_redirects=True)
            login = {"name": self.name, "password": self.password}
            page = await self._submit(browser, page, login)
            assert page.is_redirect, page.text
            page = await browser.get(page.url.join(page.headers["location"]), follow_redirects=True)
            ticked = re.findall(r'name="(capability-\w+)"', page.text)
            done = await self._submit(browser, page, {"decision": "allow", **dict.fromkeys(ticked, "on")})
            self.arrived = done.headers["location"]

    async def came_back(self) -> AuthorizationCodeResult:
        """Return what the person's browser brought the client."""
        url, _, query = self.arrived.partition("?")
        assert url == CALLBACK, self.arrived
        answer = dict(parse_qsl(query, strict_parsing=True))
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])

    async def _submit(
        self, browser: httpx2.AsyncClient, page: httpx2.Response, fields: dict[str, str]
    ) -> httpx2.Response:
        assert page.status_code == 200, page.text
        self.seen.append(page.text)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        action = re.search(r'<form method="post" action="([^"]+)"', page.text)
        assert action is not None, page.text
        address = page.url.join(action[1])
        return await browser.post(address, data={**hidden, **fields})
