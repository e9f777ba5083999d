"""One request to an address that a person gave, and no further than that.

The gateway can reach what the internet cannot: tunnels, neighbours, a cloud's metadata. So an address must be https
and lead to public addresses only, unless its owner allows others. The name is looked up once, and the connection
goes to those very addresses, with the name for TLS and `Host`. Redirects are not followed, proxies not used, and
bodies of answers not read, as nothing in them is needed.

Addresses may hold secrets, so neither receipts nor logs have them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from time import time
from typing import TYPE_CHECKING, Final

import httpx2

from opencode_common.addresses import is_public, looked_up
from opencode_notify.errors import BadOutlet
from opencode_notify.notice import ACCEPTED, Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CONNECT_SECONDS: Final = 5.0
SECONDS: Final = 10.0
"""For one request with the look-up of its name."""
MAX_ADDRESS: Final = 2_000
"""Characters of an address."""
MAX_RETRY_AFTER: Final = 86_400.0

_sending: ContextVar[bool] = ContextVar("sending to an outlet", default=False)


class _Discreet(logging.Filter):
    """Drops what the HTTP library logs of our requests: each line has the address."""

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return not _sending.get()


for _name in ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy"):
    logging.getLogger(_name).addFilter(_Discreet())


@cache
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass(frozen=True, kw_only=True)
class Network:
    """The internet; tests put another in its place.

    Args:
        look_up: returns the addresses of a name, or raises `OSError`.
        allows: tells whether an address may be connected to without being allowed by its owner.
        tls: whom TLS trusts; None stands for the system's authorities.
        seconds: for one request.
    """

    look_up: Callable[[str], Awaitable[list[str]]] = looked_up
    allows: Callable[[str], bool] = is_public
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    seconds: float = SECONDS

    async def places_of(self, host: str, *, allow_private: bool) -> list[str] | Receipt:
        """Return the addresses of a host that may be connected to, at least one, or why there are none."""
        try:
            found = await self.look_up(host)
        except (OSError, UnicodeError):
            found = []
        if not found:
            return Receipt.of_failure(
                "the host in its address is not found now: see that it is spelt right, and that others are found",
                retry=True,
            )
        if not allow_private and not all(map(self.allows, found)):
            return Receipt.of_failure(
                "its name leads to a private address: if that is meant, set allow_private for this outlet"
            )
        return found


INTERNET: Final = Network()


@dataclass(frozen=True)
class Address:
    """An address that may be asked; `str` and `repr` do not tell it."""

    url: httpx2.URL = field(repr=False)
    allow_private: bool = False

    @classmethod
    def of(cls, text: str, setting: str, *, allow_private: bool) -> Address:
        """Return the address in a setting. Raises `BadOutlet`, which names the setting."""
        if len(text) > MAX_ADDRESS:
            raise BadOutlet(f"{setting}: is longer than {MAX_ADDRESS} characters")
        try:
            url = httpx2.URL(text)
        except (httpx2.InvalidURL, ValueError):
            raise BadOutlet(f"{setting}: is no address: write https://HOST/PATH") from None
        if not url.host or url.scheme not in {"http", "https"}:
            raise BadOutlet(f"{setting}: is no address: write https://HOST/PATH")
        if url.scheme == "http" and not allow_private:
            raise BadOutlet(f"{setting}: must begin with https://; http goes only where allow_private is set")
        if url.userinfo or url.fragment:
            raise BadOutlet(f"{setting}: must have neither a name with a password nor a #fragment")
        return cls(url, allow_private)

    @property
    def origin(self) -> str:
        """Scheme, host and port, as browsers write them."""
        port = "" if self.url.port is None else f":{self.url.port}"
        host = f"[{self.url.host}]" if ":" in self.url.host else self.url.host
        return f"{self.url.scheme}://{host}{port}"

    def below(self, *parts: str) -> Address:
        """Return the address with parts put after its path; each must be plain letters, digits, `-` and `_`."""
        path = "/".join((self.url.path.rstrip("/"), *parts))
        return Address(self.url.copy_with(path=path), self.allow_private)


async def request(
    network: Network,
    method: str,
    address: Address,
    *,
    content: bytes = b"",
    headers: Mapping[str, str],
    gone: frozenset[int] = frozenset(),
) -> Receipt:
    """Make one request. Raises nothing.

    Args:
        network: how to get there.
        method: of HTTP.
        address: where to.
        content: the body.
        headers: beside those that HTTP itself needs.
        gone: statuses by which the outlet says that it is no more.
    """
    before = _sending.set(True)
    try:
        async with asyncio.timeout(network.seconds):
            places = await network.places_of(address.url.host, allow_private=address.allow_private)
            if isinstance(places, Receipt):
                return places
            return await _first_that_answers(
                network, method, address, places=places, content=content, headers=headers, gone=gone
            )
    except TimeoutError:
        return Receipt.of_failure(f"it did not answer within {network.seconds:g} s", retry=True)
    finally:
        _sending.reset(before)


async def _first_that_answers(
    network: Network,
    method: str,
    address: Address,
    *,
    places: list[str],
    content: bytes,
    headers: Mapping[str, str],
    gone: frozenset[int],
) -> Receipt:
    failed = Receipt.of_failure("it cannot be reached", retry=True)
    timeout = httpx2.Timeout(network.seconds, connect=CONNECT_SECONDS)
    async with httpx2.AsyncClient(
        verify=network.tls or _system_tls(), timeout=timeout, follow_redirects=False, trust_env=False
    ) as client:
        for place in places:
            outgoing = client.build_request(
                method,
                address.url.copy_with(host=place),
                content=content,
                headers={
                    "user-agent": "opencode-relay",
                    "accept-encoding": "identity",
                    **headers,
                    "host": address.url.netloc.decode("ascii"),
                },
                extensions={"sni_hostname": address.url.raw_host.decode("ascii")},
            )
            try:
                answer = await client.send(outgoing, stream=True)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                # Nothing was sent: the next address of the name may do better.
                failed = _unreachable(error)
                continue
            except httpx2.TimeoutException:
                return Receipt.of_failure(f"it did not answer within {network.seconds:g} s", retry=True)
            except httpx2.HTTPError:
                return Receipt.of_failure("it broke off, or what answers there does not speak HTTP", retry=True)
            try:
                return receipt_of(answer.status_code, answer.headers, gone)
            finally:
                await answer.aclose()
    return failed


def _unreachable(error: BaseException) -> Receipt:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Receipt.of_failure("its TLS certificate cannot be trusted: see that it is valid for that name")
        if isinstance(cause, ssl.SSLError):
            return Receipt.of_failure("no TLS connection could be made with it", retry=True)
        cause = cause.__cause__ or cause.__context__
    return Receipt.of_failure("nothing answers there, or the connection was refused", retry=True)


def receipt_of(status: int, headers: Mapping[str, str], gone: frozenset[int] = frozenset()) -> Receipt:
    """Return what an HTTP status says of a notice."""
    if 200 <= status < 300:
        return ACCEPTED
    if status in gone:
        return Receipt.of_failure(f"it is no more (HTTP {status}): add it anew if it is still wanted", gone=True)
    if 300 <= status < 400:
        return Receipt.of_failure(f"it redirects (HTTP {status}), which is not followed: give the address it ends at")
    if status in {401, 403}:
        return Receipt.of_failure(f"it refuses us (HTTP {status}): see that its token or key is right")
    if status in {408, 425, 429} or status >= 500:
        return Receipt.of_failure(
            f"it cannot take it now (HTTP {status})", retry=True, retry_after=_seconds(headers.get("retry-after", ""))
        )
    return Receipt.of_failure(f"it does not take it (HTTP {status}): see that its address is right")


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a `Retry-After` asks for, which is a number of them or a date."""
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        return min(float(retry_after), MAX_RETRY_AFTER)
    try:
        return min(max(parsedate_to_datetime(retry_after).timestamp() - time(), 0.0), MAX_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None
