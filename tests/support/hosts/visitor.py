"""A program: a person with a browser without scripts, who follows the link of a notice and decides on its page.

python -m support.hosts.visitor ROOT_CERTIFICATE NAME PASSWORD LINK DECISION

It prints {"shown": …, "status": …, "location": …}: the page of the ask, and what came of the decision.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys

import httpx2


async def decide(trust: ssl.SSLContext, login: tuple[str, str], link: str, decision: str) -> dict[str, object]:
    """Follow `link`, log in where that is asked for, and decide; return what the program prints."""
    async with httpx2.AsyncClient(verify=trust, trust_env=False, follow_redirects=True) as browser:
        page = await browser.get(link)
        if page.url.path == "/login":
            page = await _sent(browser, page, "/login", {"name": login[0], "password": login[1]})
            page = await browser.get(page.url.join(page.headers["location"]))
        assert page.url.path.startswith("/asks/"), f"{page.url}: {page.text}"
        done = await _sent(browser, page, page.url.path, {"decision": decision})
        return {"shown": page.text, "status": done.status_code, "location": done.headers.get("location", "")}


async def _sent(
    browser: httpx2.AsyncClient, page: httpx2.Response, action: str, fields: dict[str, str]
) -> httpx2.Response:
    """Send the form of a page that goes to `action`."""
    _, begin, rest = page.text.partition(f'method="post" action="{action}"')
    assert begin, f"{page.url}: {page.text}"
    form = rest.partition("</form>")[0]
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
    return await browser.post(page.url.join(action), data=hidden | fields, follow_redirects=False)


if __name__ == "__main__":
    root, *login, link, decision = sys.argv[1:]
    trust = ssl.create_default_context(cafile=root)
    print(json.dumps(asyncio.run(decide(trust, (login[0], login[1]), link, decision))))
