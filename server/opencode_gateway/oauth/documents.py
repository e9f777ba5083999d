"""Client-id metadata documents: a client whose id is the https address at which a document describes it.

FastMCP fetches and checks them: https only, addresses resolved once and public, no redirects. What is narrowed here:
hosts that the configuration lists, five seconds in all, 64 KiB, a small cache, few fetches at once, ids in one
spelling only.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fastmcp.server.auth.cimd import CIMDDocument, CIMDFetcher, CIMDFetchError, CIMDValidationError

from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.requests import MAX_CLIENT_ID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FETCH_SECONDS: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_CACHED: Final = 16
MAX_FETCHES: Final = 4
_PATH: Final = re.compile(r"/[A-Za-z0-9._~%@:+,;=!$&'()*/-]+")


class DocumentRefused(GatewayError):
    """A client's document is not fetched, or does not say what it must."""


class _Fetcher(CIMDFetcher):
    MAX_RESPONSE_SIZE = MAX_DOCUMENT_BYTES
    MAX_CACHE_SIZE = MAX_CACHED

    def kept(self, client_id: str) -> CIMDDocument | None:
        """Return a document for which `fetch` would ask nobody."""
        entry = self._cache.get(client_id)
        fresh = entry is not None and not entry.must_revalidate and time.time() < entry.expires_at
        return entry.doc if entry is not None and fresh else None


class Documents:
    """Fetches client-id documents.

    Args:
        hosts: from which always, as `HOST` or `HOST:PORT`.
        seconds: for one document, from the wait for a place to the last byte.
    """

    def __init__(self, hosts: Iterable[str] = (), *, seconds: float = FETCH_SECONDS) -> None:
        self._hosts = frozenset(hosts)
        self._seconds = seconds
        self._fetcher = _Fetcher(timeout=seconds)
        self._places = asyncio.Semaphore(MAX_FETCHES)

    def is_id(self, client_id: str) -> bool:
        """Tell whether this could be the id of such a client; ids of registered ones have no scheme."""
        return client_id[:8].lower() == "https://"

    async def fetch(self, client_id: str, *, hosts: Iterable[str] = ()) -> CIMDDocument:
        """Return the document at `client_id`.

        Args:
            client_id: an address.
            hosts: from which now, besides.

        Raises:
            DocumentRefused: the id is not in the one spelling that we take, its host is not listed, or the document
                cannot be had within the limits or is not about this client.
        """
        self._check_id(client_id, self._hosts.union(hosts))
        document = self._fetcher.kept(client_id) or await self._fetch(client_id)
        if str(document.client_id) != client_id:
            raise DocumentRefused("the client's document is about another client")
        if document.token_endpoint_auth_method != "none":  # noqa: S105 # the name of a method
            raise DocumentRefused("the client signs its requests with a key, which is not supported here")
        return document

    async def _fetch(self, client_id: str) -> CIMDDocument:
        waiting = True
        try:
            async with asyncio.timeout(self._seconds), self._places:
                waiting = False
                return await self._fetcher.fetch(client_id)
        except TimeoutError as error:
            if waiting:
                raise DocumentRefused("too many clients connect at once: try again in a minute") from error
            raise DocumentRefused("the client's document did not come in time") from error
        except (CIMDFetchError, CIMDValidationError, ValueError, RecursionError) as error:
            # Reasons name addresses and ports of inside: they are for the log, which FastMCP has written.
            raise DocumentRefused("the client's document cannot be fetched, or is not valid") from error

    def _check_id(self, client_id: str, hosts: Collection[str]) -> None:
        try:
            parts = urlsplit(client_id)
        except ValueError:
            raise DocumentRefused("the client's id is not a URL") from None
        if len(client_id) > MAX_CLIENT_ID or parts.scheme != "https" or parts.geturl() != client_id:
            raise DocumentRefused("the client's id is not a plain https URL")
        if parts.netloc not in hosts:
            raise DocumentRefused("the client's document is on a host from which none is fetched here")
        dots = {".", ".."} & set(parts.path.lower().replace("%2e", ".").split("/"))
        if not _PATH.fullmatch(parts.path) or dots or parts.query or parts.fragment:
            raise DocumentRefused("the client's id must be https://HOST/PATH, without query or fragment")
