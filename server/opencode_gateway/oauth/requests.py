"""An authorization request on its way through the login and consent pages, carried by the browser and signed by us.

Nothing is stored for a stranger: what `/authorize` was asked is in the URL of the login page, and comes back with
each form.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opencode_gateway.capabilities import Capability  # noqa: TC001 # pydantic needs it at run time
from opencode_gateway.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIFETIME_SECONDS: Final = 600
"""From `/authorize` to the answer on the consent page."""
MAX_STATE: Final = 2048
MAX_REDIRECT_URI: Final = 512
MAX_CLIENT_ID: Final = 512
MAX_SIGNED: Final = 8192
KEY_FILE: Final = "signing.key"
_KEY_BYTES: Final = 32


class Pending(BaseModel):
    """What a client asked for, checked by `/authorize`, and not yet answered by a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: Annotated[str, Field(max_length=MAX_CLIENT_ID)]
    client_name: Annotated[str, Field(max_length=100)]
    """As it may be shown: cleaned of what is not text."""
    document: bool
    """The client is known by a document at `client_id`, not by a registration here."""
    redirect_uri: Annotated[str, Field(max_length=MAX_REDIRECT_URI)]
    redirect_uri_explicit: bool = True
    state: Annotated[str, Field(max_length=MAX_STATE)] | None = None
    challenge: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """PKCE, S256."""
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1, max_length=3)]
    """What the client asks for; a person grants all or part of it."""
    resource: Annotated[str, Field(max_length=512)]

    @property
    def redirect_host(self) -> str:
        """Where the person is sent afterwards: host, and port if it is not the usual one."""
        return urlsplit(self.redirect_uri).netloc


class PendingRequests:
    """Signs pending requests and reads them back.

    Args:
        key: the service's own; see `load_key`.
        clock: seconds since the epoch.
    """

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = URLSafeTimedSerializer(key, salt="pending-authorization", signer=Signer)

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


def load_key(data_dir: Path) -> bytes:
    """Read the key that signs pending requests and forms, and make it at the first call.

    Raises:
        StoreError: it cannot be read or made, is no regular file, or is open to others.
    """
    path = data_dir / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        # O_NONBLOCK: opening a FIFO must not wait for whoever is at the other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 # a descriptor, not a path
            mode = os.fstat(descriptor).st_mode
            key = file.read(_KEY_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise StoreError(
            f"{path} cannot be used: {error.strerror}; see that {data_dir} belongs to the service"
        ) from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is no regular file: remove it, and people who are just logging in start again")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(f"{path} is open to others here: `chmod 600 {path}`, and remove it if they are not trusted")
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{path} is damaged: remove it, and people who are just logging in start again")
    return key


def _make_key(path: Path) -> None:
    """Put a key there, whole at once, unless another process is faster."""
    made = path.with_name(f".{KEY_FILE}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()
