"""Why somebody logs in, carried by the browser through the login and signed by us.

That is a client's authorization request, or a page of ours that needs a session. Nothing is stored for a stranger:
it is in the URL of the login page, and comes back with each form.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opencode_gateway.capabilities import Capability  # noqa: TC001 # pydantic needs it at run time
from opencode_gateway.key_files import load_key
from opencode_gateway.oauth.credentials import Method  # noqa: TC001 # pydantic needs it at run time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIFETIME_SECONDS: Final = 600
"""From `/authorize` to the answer on the consent page."""
MAX_STATE: Final = 2048
MAX_REDIRECT_URI: Final = 512
MAX_CLIENT_ID: Final = 512
"""Of a client that has a document."""
MAX_REGISTERED_ID: Final = 1536
"""Of one that registered, whose id carries what it registered: two RSA keys, an old and a new one, take 1,000."""
MAX_SIGNED: Final = 8192
MAX_TARGET: Final = 512
_KEY_FILE: Final = "signing.key"


class Pending(BaseModel):
    """What a client asked for, checked by `/authorize`, and not yet answered by a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: Annotated[str, Field(max_length=MAX_REGISTERED_ID)]
    client_name: Annotated[str, Field(max_length=100)]
    """As it may be shown: cleaned of what is not text."""
    document: bool
    """The client is known by a document at `client_id`, not by a registration here."""
    auth_method: Method = "none"
    """Of a document: what its client must do at least at the token endpoint."""
    redirect_uri: Annotated[str, Field(max_length=MAX_REDIRECT_URI)]
    redirect_uri_explicit: bool = True
    state: Annotated[str, Field(max_length=MAX_STATE)] | None = None
    challenge: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """PKCE, S256."""
    asked_at: float = 0.0
    """In seconds since the epoch: what the owner took back later does not count for it."""
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1, max_length=3)]
    """What the client asks for; a person grants all or part of it."""
    resource: Annotated[str, Field(max_length=512)]
    only_login: Annotated[str, Field(max_length=320)] | None = None
    """Who alone may complete it: it was let in without a window, as this person's; see `renewals`."""
    let_in_as: Annotated[str, Field(max_length=512)] = ""
    """The known clients, as `redirects.Allowed.let_in_as` has them, without which `redirect_uri` were not allowed."""

    @property
    def redirect_host(self) -> str:
        """Where the person is sent afterwards: host, and port if it is not the usual one; else a program's scheme."""
        parts = urlsplit(self.redirect_uri)
        return parts.netloc if parts.scheme in {"http", "https"} else f"{parts.scheme}://{parts.netloc}"


class PageVisit(BaseModel):
    """A page of ours that somebody came to without a session. They are led there once they have logged in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Annotated[str, Field(max_length=MAX_TARGET, pattern=r"^/([!-.0-\[\]-~][!-\[\]-~]*)?$")]
    """Path and query. What begins with two slashes would be another site's, and browsers take `\\` for one."""


Asked = Pending | PageVisit


class PendingRequests:
    """Signs pending requests and page visits, and reads them back.

    Args:
        key: the service's own; see `signing_key`.
        clock: seconds since the epoch.
    """

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = URLSafeTimedSerializer(key, salt="pending-authorization", signer=Signer)
        self._visits = URLSafeSerializer(key, salt="page-visit")

    def sign(self, pending: Pending) -> str:
        """Return what `/login?request=` carries."""
        return str(self._serializer.dumps(pending.model_dump(mode="json")))

    def read(self, signed: str) -> Pending | None:
        """Return what was signed; None if it was not signed here, was changed, or is over ten minutes old."""
        if len(signed) > MAX_SIGNED:
            return None
        try:
            return Pending.model_validate(self._serializer.loads(signed, max_age=LIFETIME_SECONDS))
        except (BadSignature, ValidationError):
            return None

    def sign_visit(self, visit: PageVisit) -> str:
        """Return what `/login?request=` carries. It grants nothing, so it does not end."""
        return str(self._visits.dumps(visit.model_dump()))

    def read_visit(self, signed: str) -> PageVisit | None:
        """Return what was signed; None if it was not signed here, or is another thing."""
        if len(signed) > MAX_SIGNED:
            return None
        try:
            return PageVisit.model_validate(self._visits.loads(signed))
        except (BadSignature, ValidationError):
            return None


def signing_key(data_dir: Path) -> bytes:
    """Read the key of pending requests and forms, and make it at the first call.

    Raises:
        StoreError: see `key_files.load_key`.
    """
    return load_key(data_dir / _KEY_FILE, without="people who are just logging in start again")
