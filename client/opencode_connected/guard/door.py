"""Who may come in at all: nobody by another name than loopback's, no browser, and none without the password."""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING

from opencode_connected.guard.refusals import RequestRefused

if TYPE_CHECKING:
    from aiohttp import web
    from multidict import CIMultiDictProxy

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_OF_BROWSERS = ("origin", "sec-fetch-site")


class WrongPassword(RequestRefused):
    """The password is missing or wrong."""

    status = 401

    def response(self) -> web.Response:
        """Return the answer, which asks for one."""
        response = super().response()
        response.headers["www-authenticate"] = 'Basic realm="opencode"'
        return response


class GuardDoor:
    """The lock of one listener; `credentials` are user and password, or None where none is asked for."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self._expected = None if credentials is None else ":".join(credentials).encode()

    def check(self, headers: CIMultiDictProxy[str]) -> None:
        """Refuse a request that may not come in.

        Raises:
            Refused: with what the log and the person afar are told.

        """
        hosts = headers.getall("host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise RequestRefused("host", "the guard answers as 127.0.0.1 or localhost only: use such a URL")
        if any(name in headers for name in _OF_BROWSERS):
            raise RequestRefused("origin", "the guard does not answer web pages: use opencode-mcp")
        if "upgrade" in headers or headers.get("content-encoding", "identity") != "identity":
            raise RequestRefused("http", "the guard takes neither upgrades nor packed bodies: send plain HTTP")
        if self._expected is not None and not hmac.compare_digest(_given(headers), self._expected):
            raise WrongPassword(
                "password", "the guard wants a password: put it into the file that RELAY_CREDENTIALS_FILE names"
            )


def _given(headers: CIMultiDictProxy[str]) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(token.strip(), validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        return b""
