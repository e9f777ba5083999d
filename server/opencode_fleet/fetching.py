"""Fetches a file by https from the public internet, and from nowhere else, whatever the address leads to.

The server can reach what the internet cannot: tunnels, neighbours, a cloud's metadata. So an address must be https at
the usual port, with a name and without a password. The name is looked up once; if any address that it has is not
public, nothing is connected to; else the connection goes to those very addresses, with the name for TLS and `Host`.
Each redirect is a new address and is checked anew. No cookies, no proxies, no compression.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from opencode_common.addresses import is_public, looked_up
from opencode_common.file_types import MAX_FILE_BYTES
from opencode_common.text import one_line
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

HTTPS_PORT: Final = 443
FETCH_SECONDS: Final = 10.0
"""For one file with all its redirects."""
MAX_REDIRECTS: Final = 3
MAX_URL: Final = 2_000
_USER: Final = re.compile(r"//[^/]*@")
"""What stands before a host may be a password, which is not repeated."""
_REDIRECTS: Final = {301, 302, 303, 307, 308}


class _NotPublic(OSError):
    """A name has an address that is not public."""


class _PublicAddresses(AbstractResolver):
    """Finds the addresses of names for aiohttp, which connects to those that it is given and to no others."""

    def __init__(self, look_up: Callable[[str], Awaitable[list[str]]], allows: Callable[[str], bool]) -> None:
        self._look_up = look_up
        self._allows = allows

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        found = await self._look_up(host)
        if not found or not all(map(self._allows, found)):
            raise _NotPublic(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Close nothing."""


class Fetcher:
    """Fetches files.

    The arguments stand in for the internet, in tests: how names are looked up, which addresses may be connected to,
    at which port, and whom TLS trusts.
    """

    def __init__(
        self,
        look_up: Callable[[str], Awaitable[list[str]]] = looked_up,
        allows: Callable[[str], bool] = is_public,
        port: int = HTTPS_PORT,
        tls: ssl.SSLContext | bool = True,
        seconds: float = FETCH_SECONDS,
    ) -> None:
        self._look_up = look_up
        self._allows = allows
        self._port = port
        self._tls = tls
        self._seconds = seconds

    async def fetch(self, address: str) -> tuple[str, bytes]:
        """Return the name and the bytes of the file at `address`: at most `MAX_FILE_BYTES`.

        Raises:
            Refused: it may not be fetched, or could not be; nothing was sent.
        """
        shown = repr(one_line(_USER.sub("//", address[:MAX_URL]), 120))
        try:
            async with asyncio.timeout(self._seconds), self._session() as session:
                return await self._follow(session, address, shown)
        except TimeoutError:
            raise _refused(
                shown, f"did not come within {self._seconds:g} s: try again, or send it another way"
            ) from None
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, _NotPublic):
                raise _refused(shown, "leads to an address that is not public, and is not fetched") from None
            raise _refused(shown, "has a name that is not known: see that it is right") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
            raise _refused(shown, "has a TLS certificate that cannot be trusted") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise _refused(shown, "could not be fetched: nothing proper answers there") from None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_PublicAddresses(self._look_up, self._allows),
                use_dns_cache=False,
                ssl=self._tls,
                force_close=True,
            ),
            headers={"accept-encoding": "identity", "user-agent": "opencode-relay"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )

    async def _follow(self, session: aiohttp.ClientSession, address: str, shown: str) -> tuple[str, bytes]:
        url = self._checked(address, shown)
        for _ in range(MAX_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as response:
                location = response.headers.get("location", "")
                if response.status not in _REDIRECTS or not location:
                    return _name(url), await _read(response, shown)
            if len(location) > MAX_URL:
                break
            url = self._checked(str(url.join(URL(location))), shown)
        raise _refused(shown, "is redirected too often: give the address that it ends at")

    def _checked(self, address: str, shown: str) -> URL:
        """Return the address, which may be asked for."""
        if len(address) > MAX_URL:
            raise _refused(shown, f"is longer than {MAX_URL} characters")
        try:
            url = URL(address)
            port = url.port
        except ValueError:
            raise _refused(shown, "is no address: write https://HOST/PATH") from None
        host = url.host or ""
        if url.scheme != "https" or not host:
            raise _refused(shown, "is not fetched: files come by https alone")
        if url.user is not None or url.password is not None:
            raise _refused(shown, "holds a name or password: no secrets are sent to fetch a file")
        if port != self._port:
            raise _refused(shown, f"names another port than {self._port}, and is not fetched")
        # aiohttp would connect to an address that is written out without asking for it.
        if _is_address(host) or _is_address(url.raw_host or ""):
            raise _refused(shown, "names a machine by its number, and is not fetched: give its name")
        return url


def _is_address(host: str) -> bool:
    if ":" in host or "%" in host:
        return True
    # What aiohttp takes for an address, and would have the system look up unchecked.
    if host.replace(".", "").isdigit():
        return True
    # As the system's resolver takes numbers: decimal, octal, hexadecimal, and with less than four parts.
    try:
        socket.inet_aton(host.rstrip("."))
    except OSError:
        return False
    return True


async def _read(response: aiohttp.ClientResponse, shown: str) -> bytes:
    if response.status != 200:
        raise _refused(shown, f"was answered with HTTP {response.status}: see that anybody may fetch it")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _refused(shown, "came compressed, which was not asked for")
    too_large = _refused(shown, f"is larger than {MAX_FILE_BYTES // 1_000_000} MB: send a smaller one")
    if (response.content_length or 0) > MAX_FILE_BYTES:
        raise too_large
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_FILE_BYTES:
            raise too_large
    return bytes(content)


def _name(url: URL) -> str:
    return unquote(url.raw_name, errors="replace") or url.host or "file"


def _refused(shown: str, why: str) -> Refused:
    return Refused(f"{shown} {why}. Nothing was sent")
