"""Where an authorization code may be sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import AnyUrl

if TYPE_CHECKING:
    from collections.abc import Collection

    from opencode_gateway.configuration import Clients

_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?/[!-~]*")


def is_loopback(uri: str) -> bool:
    """Tell whether this leads to a program on the person's own machine."""
    return _LOOPBACK.fullmatch(uri) is not None and "#" not in uri


def is_allowed(uri: str, rules: Clients) -> bool:
    """Tell whether the configuration lets a client have codes sent to `uri`, which is compared as it is written."""
    return uri in rules.redirect_uris or (rules.loopback_redirects and is_loopback(uri))


def is_registered(uri: str, registered: Collection[str]) -> bool:
    """Tell whether a client named this URI. A loopback address has another port each time (RFC 8252, 7.3)."""
    return uri in registered or (is_loopback(uri) and _without_port(uri) in map(_without_port, registered))


def as_written(uri: AnyUrl, rules: Clients) -> str:
    """Return the spelling that the configuration has for a URI that was parsed, which may have changed it."""
    text = str(uri)
    return next((allowed for allowed in rules.redirect_uris if _parsed(allowed) == text), text)


def _without_port(uri: str) -> str:
    if not is_loopback(uri):
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.removesuffix(f":{parts.port}")).geturl() if parts.port else uri


def _parsed(uri: str) -> str:
    return str(AnyUrl(uri))
