"""People log in at GitHub, Google or an OpenID provider; who is not in `sign_in.users` is not let in.

- `people`    the list, and how an address is looked up in it
- `upstream`  what is asked of a provider
- `consent`   the page on which a person says yes or no
- `tokens`    what becomes of the tokens of FastMCP's proxy
- `provider`  the proxy with all that put in
- `sessions`  logins, in the table that the commands show
- `state`     what the proxy keeps between requests

Everything fails closed: no address, one that is not verified or not listed, an answer that cannot be checked, none.

The list is read at the start, so a change of it counts from a restart on, and then at once: it is asked at each use
of a token. `opencode-gateway sessions revoke` ends a session without a restart. Otherwise one lives as long as the
provider renews it when it is asked again, every hour at the latest, and at most 90 days after its last refresh.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Final

from fastmcp.server.auth.jwt_issuer import derive_jwt_key
from fastmcp.server.dependencies import get_http_request

from opencode_gateway.configuration import ProviderSignIn
from opencode_gateway.errors import ConfigError
from opencode_gateway.key_files import load_key
from opencode_gateway.sign_in.throttle import network
from opencode_gateway.teams import upstream
from opencode_gateway.teams.people import People
from opencode_gateway.teams.provider import TeamSignIn
from opencode_gateway.teams.state import ProviderState, encrypted
from opencode_gateway.teams.upstream import GitHub, OpenID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.audit import Event
    from opencode_gateway.configuration import Configuration
    from opencode_gateway.oauth.documents import Documents
    from opencode_gateway.store import Store
    from opencode_gateway.teams.upstream import Identity

__all__ = ["KEY_FILE", "build"]

KEY_FILE: Final = "provider.key"
"""It is no other secret's child: changing the client's secret at the provider ends no session."""


def build(
    configuration: Configuration,
    store: Store,
    *,
    documents: Documents | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    clock: Callable[[], float] = time.time,
) -> TeamSignIn:
    """Return the authorization server of a gateway whose `sign_in` names an identity provider.

    Reads the discovery document of an OpenID provider: if that does not answer, there is no gateway until whatever
    starts it has tried again.

    Raises:
        ConfigError: a setting or the client's secret cannot be used, or the provider does not answer as it must.
        StoreError: the key cannot be read or made.
    """
    sign_in = configuration.sign_in
    if not isinstance(sign_in, ProviderSignIn):
        raise TypeError("this gateway has its own users")
    people = People(sign_in.users)
    secret = _secret(sign_in.client_secret_file)
    key = load_key(configuration.data_dir / KEY_FILE, without="people log in anew").hex()
    return TeamSignIn(
        configuration,
        store,
        _identity(sign_in),
        people,
        client_id=sign_in.client_id,
        client_secret=secret,
        key=derive_jwt_key(high_entropy_material=key, salt="opencode-gateway tokens"),
        storage=encrypted(
            ProviderState(store, source=_source, clock=clock),
            derive_jwt_key(high_entropy_material=key, salt="opencode-gateway state"),
        ),
        documents=documents,
        on_event=on_event,
        clock=clock,
    )


_SITE_BITS: Final = 48
"""Of IPv6: what a provider gives one site at most."""


def _source() -> str:
    """Return from which network the request comes that is answered now."""
    client = get_http_request().client
    return network(client.host, _SITE_BITS) if client else ""


def _identity(sign_in: ProviderSignIn) -> Identity:
    if sign_in.mode == "github":
        return GitHub()
    issuer = upstream.GOOGLE_ISSUER if sign_in.mode == "google" else str(sign_in.issuer)
    return OpenID(sign_in.mode, issuer, sign_in.client_id)


def _secret(path: Path) -> str:
    """Read the client's secret, which may end in a newline."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4097).decode("ascii").strip("\r\n")
    except OSError as error:
        raise ConfigError(f"sign_in.client_secret_file: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"sign_in.client_secret_file: {path} holds no secret of ASCII characters") from error
    if mode & stat.S_IRWXO:
        raise ConfigError(f"sign_in.client_secret_file: {path} is open to everybody here: `chmod o= {path}`")
    if not 1 <= len(text) <= 4096 or not text.isprintable():
        raise ConfigError(f"sign_in.client_secret_file: {path} must hold one line, the secret alone")
    return text
