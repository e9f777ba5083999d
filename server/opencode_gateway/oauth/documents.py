"""Client-id metadata documents: a client whose id is the https address at which a document describes it.

FastMCP fetches (https only, addresses resolved once and public, no redirects) and knows what a document holds. Ours
are the bounds: hosts that the configuration lists, five seconds in all, 64 KiB, a small cache, few fetches at once,
ids in one spelling only. A client's keys are fetched within the same ones.

FastMCP's own `CIMDFetcher` and `CIMDClientManager` are not used: they take neither a deadline nor a number of
fetches, cannot tell what they have kept already, and drop `token_endpoint_auth_methods_supported`, without which
ChatGPT's document reads as one that must sign.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from fastmcp.server.auth.cimd import CIMDDocument
from fastmcp.server.auth.ssrf import SSRFError, SSRFFetchError, ssrf_safe_fetch

from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.credentials import key_set
from opencode_gateway.oauth.places import FetchPlaces
from opencode_gateway.oauth.requests import MAX_CLIENT_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

FETCH_SECONDS: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_CACHED: Final = 16
MAX_FETCHES: Final = 4
MAX_OF_ONE: Final = 2
"""Of these for one network: whoever asks for what comes slowly leaves places to others."""
KEPT_SECONDS: Final = 300.0
"""For which a document or a key set is not asked for again, whatever its host says."""
NEW_KEY_SECONDS: Final = 30.0
"""After which a key set that lacks a key is asked for again: its client may have a new one."""
_PATH: Final = re.compile(r"/[A-Za-z0-9._~%@:+,;=!$&'()*/-]+")

_Content = TypeVar("_Content")


class DocumentRefused(GatewayError):
    """A client's document or keys are not fetched, or do not say what they must."""


class DocumentUnreachable(DocumentRefused):
    """They cannot be had now, and may be later."""


@dataclass(frozen=True)
class _Kept:
    content: Any
    since: float


class ClientDocuments:
    """Fetches client-id documents, and the keys of clients.

    Args:
        hosts: from which always, as `HOST` or `HOST:PORT`.
        seconds: for one of them, from the wait for a place to the last byte.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        hosts: Iterable[str] = (),
        *,
        seconds: float = FETCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._seconds = seconds
        self._clock = clock
        self._places = FetchPlaces(MAX_FETCHES, MAX_OF_ONE)
        self._kept: dict[tuple[str, str], _Kept] = {}
        """By what it is, and its address."""

    def is_id(self, client_id: str) -> bool:
        """Tell whether this could be the id of such a client; ids of registered ones have no scheme."""
        return client_id[:8].lower() == "https://"

    def may_fetch_keys(self, uri: str, hosts: Iterable[str]) -> bool:
        """Tell whether a client's `jwks_uri` is on one of `hosts`, or of those that are always listed."""
        parts = _plain(uri)
        return parts is not None and parts.netloc in self._hosts.union(hosts)

    async def fetch(self, client_id: str, *, hosts: Iterable[str] = (), source: str = "") -> CIMDDocument:
        """Return the document at `client_id`.

        Its `token_endpoint_auth_method` is what the client must do at least: `none` if it offers that among others,
        else `private_key_jwt`, and then it names keys that can be had.

        Args:
            client_id: an address.
            hosts: from which now, besides.
            source: the network of whoever makes us ask.

        Raises:
            DocumentRefused: the id is not in the one spelling that we take, its host is not listed, or the document
                cannot be had within the limits or is not about this client.
        """
        hosts = self._hosts.union(hosts)
        self._check_id(client_id, hosts)

        def read(content: object) -> CIMDDocument:
            if not isinstance(content, dict):
                raise TypeError("not an object")
            document = CIMDDocument.model_validate(content | {"token_endpoint_auth_method": _least(content)})
            if str(document.client_id) != client_id:
                raise DocumentRefused("the client's document is about another client")
            if document.token_endpoint_auth_method == "private_key_jwt":  # noqa: S105 # the name of a method
                self._check_keys(document, hosts)
            return document

        return await self._fetch(client_id, "document", read, source=source)

    async def keys_in(
        self, client_id: str, *, hosts: Iterable[str], key_id: str | None, source: str = ""
    ) -> dict[str, Any]:
        """Return the key set that the document at `client_id` holds or names; see `fetch` and `keys`."""
        document = await self.fetch(client_id, hosts=hosts, source=source)
        if document.jwks is None:
            return await self.keys(str(document.jwks_uri or ""), hosts=hosts, key_id=key_id, source=source)
        try:
            return key_set(document.jwks)
        except ValueError as error:
            raise DocumentRefused(f"the client's document holds a key set that is not valid: {error}") from error

    async def keys(self, uri: str, *, hosts: Iterable[str], key_id: str | None, source: str = "") -> dict[str, Any]:
        """Return the key set at `uri`.

        Args:
            uri: where.
            hosts: as for `may_fetch_keys`.
            key_id: one that should be in it; if it is not, the set is asked for anew, at most every half minute.
            source: as for `fetch`.

        Raises:
            DocumentRefused: it is on another host, cannot be had within the limits, or is none.
        """
        if not self.may_fetch_keys(uri, hosts):
            raise DocumentRefused("the client names no key, or one on a host from which none are fetched here")
        found = await self._fetch(uri, "key set", key_set, source=source)
        if key_id is not None and all(key.get("kid") != key_id for key in found["keys"]):
            found = await self._fetch(uri, "key set", key_set, source=source, not_older=NEW_KEY_SECONDS)
        return found

    async def _fetch(
        self,
        url: str,
        what: str,
        read: Callable[[object], _Content],
        *,
        source: str,
        not_older: float = KEPT_SECONDS,
    ) -> _Content:
        content: _Content
        key = what, url  # as one address can be named as either
        kept = self._fresh(key, not_older)
        if kept is not None:
            content = kept.content
            return content
        waiting = True
        try:
            async with asyncio.timeout(self._seconds), self._places.one(source):
                waiting = False
                # Many may have waited for the same: strangers can ask for a key that is in no set all at once.
                kept = self._fresh(key, not_older)
                if kept is None:
                    raw = await ssrf_safe_fetch(
                        url,
                        require_path=True,
                        max_size=MAX_DOCUMENT_BYTES,
                        timeout=self._seconds,
                        overall_timeout=self._seconds,
                    )
                    kept = _Kept(read(json.loads(raw)), self._clock())
        except TimeoutError as error:
            if waiting:
                raise DocumentUnreachable("too many clients connect at once: try again in a minute") from error
            raise DocumentUnreachable(f"the client's {what} did not come in time") from error
        except SSRFFetchError as error:
            # Reasons name addresses and ports of inside: they are not for whoever asks.
            raise DocumentUnreachable(f"the client's {what} cannot be fetched") from error
        except (SSRFError, ValueError, TypeError, RecursionError) as error:
            raise DocumentRefused(f"the client's {what} cannot be fetched, or is not valid") from error
        self._kept.pop(key, None)
        self._kept[key] = kept
        while len(self._kept) > MAX_CACHED:
            del self._kept[next(iter(self._kept))]
        content = kept.content
        return content

    def _fresh(self, key: tuple[str, str], not_older: float) -> _Kept | None:
        kept = self._kept.get(key)
        return kept if kept is not None and self._clock() < kept.since + not_older else None

    def _check_id(self, client_id: str, hosts: Collection[str]) -> None:
        try:
            parts = urlsplit(client_id)
        except ValueError:
            raise DocumentRefused("the client's id is not a URL") from None
        if len(client_id) > MAX_CLIENT_ID or parts.scheme != "https" or parts.geturl() != client_id:
            raise DocumentRefused("the client's id is not a plain https URL")
        if parts.netloc not in hosts:
            raise DocumentRefused("the client's document is on a host from which none is fetched here")
        if _plain(client_id) is None:
            raise DocumentRefused("the client's id must be https://HOST/PATH, without query or fragment")

    def _check_keys(self, document: CIMDDocument, hosts: Collection[str]) -> None:
        if document.jwks is not None:
            try:
                key_set(document.jwks)
            except ValueError as error:
                raise DocumentRefused(f"the client's document holds a key set that is not valid: {error}") from error
        elif document.jwks_uri is None:
            raise DocumentRefused("the client's document says that it signs, and names no key")
        elif not self.may_fetch_keys(str(document.jwks_uri), [*hosts, netloc(str(document.client_id))]):
            raise DocumentRefused(
                "the client's keys are on a host that is not its document's, and from which none are fetched here"
            )


def netloc(client_id: str) -> str:
    """Return the host, and port if it is not the usual one, of an id that is known to be an address."""
    return urlsplit(client_id).netloc


def _least(document: dict[str, Any]) -> object:
    """Return the method that a client must use at least, of those which its document offers.

    `token_endpoint_auth_methods_supported` is OpenID Connect's "Relying Party Metadata Choices": what the client can
    do, of which `token_endpoint_auth_method` is what it likes best.
    """
    liked = document.get("token_endpoint_auth_method")
    offered = document.get("token_endpoint_auth_methods_supported") or []
    if not isinstance(offered, list):
        raise TypeError("token_endpoint_auth_methods_supported is not a list")
    if "none" in offered or (liked is None and not offered):
        return "none"
    return "private_key_jwt" if "private_key_jwt" in offered else liked


def _plain(url: str) -> SplitResult | None:
    """Take an address apart; None unless it is https://HOST/PATH in its one spelling."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    dots = {".", ".."} & set(parts.path.lower().replace("%2e", ".").split("/"))
    plain = parts.scheme == "https" and parts.geturl() == url and _PATH.fullmatch(parts.path) and not dots
    return None if not plain or parts.query or parts.fragment or len(url) > MAX_CLIENT_ID else parts
