"""Where an authorization code may be sent, and whose client-id documents are fetched.

Three things say so together: `gateway.json`, the known clients that are on by default, and what `clients enable` and
`clients disable` wrote to the store. They are read at each use, so that a command counts at once.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from pydantic import AnyUrl

from opencode_gateway.errors import StoreError
from opencode_gateway.oauth.enrolment import opened_for
from opencode_gateway.oauth.known_clients import (
    ENTRIES,
    Known,
    hosts_document,
    known_client,
    known_clients,
    owners_of,
)
from opencode_gateway.refusals import Refusal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from opencode_gateway.configuration import ClientSettings
    from opencode_gateway.store import Store

_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?(/[!-~]*)?")
_OWN_SCHEME: Final = re.compile(r"(?!https?:|javascript:|data:|file:)[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)*:/")
_ANY_PROGRAM: Final = "set `clients.loopback_redirects` to true in gateway.json"
_MAX_TOLD: Final = 3
"""Addresses that a refusal names."""
DEFAULT: Final = "default"
CONFIGURED: Final = "gateway.json"
COMMANDED: Final = "command"


def is_loopback(uri: str) -> bool:
    """Tell whether this leads to a program on the person's own machine."""
    return _LOOPBACK.fullmatch(uri) is not None and "#" not in uri


def is_registered(uri: str, registered: Collection[str]) -> bool:
    """Tell whether a client named this URI. A loopback address has another port each time (RFC 8252, 7.3)."""
    return uri in registered or (is_loopback(uri) and _without_port(uri) in map(_without_port, registered))


@dataclass(frozen=True)
class Allowed:
    """What is allowed at one moment.

    Args:
        exact: the addresses of `clients.redirect_uris`.
        loopback: any address of a program on one's own machine.
        known: the known clients that are on.
        let_in: those that are not on, and are allowed all the same: the window is opened for them, or the client at
            hand was admitted in such a window.
        document_hosts: whose documents are fetched, as `HOST` or `HOST:PORT`.
        replaced: `clients.redirect_uris` is set, in place of the addresses of the clients that are on by default.
    """

    exact: tuple[str, ...]
    loopback: bool
    known: tuple[Known, ...]
    let_in: tuple[Known, ...]
    document_hosts: frozenset[str]
    replaced: bool = False

    def allows(self, uri: str) -> bool:
        """Tell whether codes may be sent to `uri`, which is compared as it is written."""
        return self._always_allows(uri) or any(known.has(uri) for known in self.let_in)

    def let_in_as(self, uris: Iterable[str]) -> str:
        """Return the known clients, as kept text, without which some of these addresses would not be allowed."""
        asked = [uri for uri in uris if not self._always_allows(uri)]
        return " ".join(str(known) for known in self.let_in if any(map(known.has, asked)))

    def as_written(self, uri: AnyUrl) -> str:
        """Return the spelling that the configuration has for a URI that was parsed, which may have changed it."""
        text = str(uri)
        return next((allowed for allowed in self.exact if str(AnyUrl(allowed)) == text), text)

    @property
    def origins(self) -> frozenset[str]:
        """The origins of web pages of known clients that are on."""
        return frozenset(origin for known in (*self.known, *self.let_in) for origin in known.entry.origins)

    def refusal(self, uris: Iterable[str], client_name: str) -> Refusal:
        """Return why a client gets in with none of these addresses, and what helps."""
        refused = list(dict.fromkeys(uri for uri in uris if not self.allows(uri)))
        kinds = list(dict.fromkeys(_kind(uri) for uri in refused))
        told = ", ".join(kinds[:_MAX_TOLD]) + (" and others" if len(kinds) > _MAX_TOLD else "")
        return Refusal(
            kind="redirect",
            reason=f"no redirect_uri of it is allowed here ({told or 'it has none'})",
            remedy=self._remedy(refused, client_name),
            client=client_name,
        )

    def document_remedy(self, client_id: str) -> str:
        """Return what helps if the document of `client_id` is not fetched for its host; empty if that is not why."""
        host = _netloc(client_id)
        if host in self.document_hosts:
            return ""
        owners = hosts_document(host)
        return _switch_on(owners) if owners else "if you trust that host, add it to `clients.client_id_hosts`"

    def _always_allows(self, uri: str) -> bool:
        return (
            uri in self.exact or (self.loopback and is_loopback(uri)) or any(known.has(uri) for known in self.known)
        )

    def _remedy(self, refused: Sequence[str], client_name: str) -> str:
        owners = likeliest(refused, client_name)
        if owners:
            return _switch_on(owners)
        if any(map(is_loopback, refused)):
            return f"if it is a program of yours, {_ANY_PROGRAM}"
        if not any(uri.startswith("https://") or _OWN_SCHEME.match(uri) for uri in refused):
            return "it must have an https address, or one on loopback"
        keep = "" if self.replaced else ", and claude and chatgpt to `clients.known` to keep those"
        return f"if you trust it, add its address to `clients.redirect_uris` in gateway.json{keep}"


def likeliest(uris: Sequence[str], client_name: str) -> list[Known]:
    """Return the known clients that one with these addresses is likely to be: those to which most of them belong."""
    counts = {owner: sum(map(owner.has, uris)) for uri in uris for owner in owners_of(uri, client_name)}
    return [owner for owner in counts if counts[owner] == max(counts.values())]


@dataclass(frozen=True)
class Switch:
    """A known client and what switches it on: none of `sources` if it is off."""

    known: Known
    sources: tuple[str, ...]


class RedirectRules:
    """What is allowed, read anew at each use.

    Args:
        settings: what `gateway.json` says.
        store: has what commands say.
        clock: seconds since the epoch.
    """

    def __init__(self, settings: ClientSettings, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock

    @property
    def enrolment(self) -> Literal["window", "open"]:
        """When new clients are admitted."""
        return self._settings.enrolment

    def now(self) -> Allowed:
        """Return what is allowed now."""
        with self._store.transaction(write=False) as db:
            return self.read(db)

    def origins(self) -> frozenset[str]:
        """Return the origins whose web pages may be clients now; while the store does not serve, those configured."""
        known: frozenset[str] = frozenset()
        with suppress(StoreError):
            known = self.now().origins
        return known.union(self._settings.origins)

    def read(self, db: sqlite3.Connection, *, let_in_as: str = "") -> Allowed:
        """Return what is allowed now to a client that was let in as these known clients."""
        settings, commands = self._settings, commanded(db)
        known = tuple(switch.known for switch in switches(settings, commands) if switch.sources)
        named = [*known_clients(let_in_as), *opened_for(db, self._clock())]
        let_in = tuple(dict.fromkeys(one for one in named if one not in known))
        hosts = settings.client_id_hosts
        if hosts is None:
            hosts = tuple(host for one in _defaults(commands) for host in one.entry.document_hosts)
        return Allowed(
            exact=settings.redirect_uris or (),
            loopback=settings.loopback_redirects,
            known=known,
            let_in=let_in,
            document_hosts=frozenset(hosts).union(*(one.entry.document_hosts for one in (*known, *let_in))),
            replaced=settings.redirect_uris is not None,
        )


def commanded(db: sqlite3.Connection) -> dict[Known, bool]:
    """Return what commands switched on and off."""
    rows = db.execute("SELECT name, enabled FROM known_clients ORDER BY name").fetchall()
    return {known: bool(row["enabled"]) for row in rows for known in known_clients(row["name"])}


def switches(settings: ClientSettings, commands: Mapping[Known, bool]) -> list[Switch]:
    """Return all known clients, on and off; one that lives at somebody's own host once for each host of it."""
    defaults = _defaults(commands) if settings.redirect_uris is None else []
    configured = [known_client(name) for name in settings.known]
    order = list(ENTRIES)
    everywhere = [Known(name) for name, entry in ENTRIES.items() if not entry.own_host]
    named = sorted({*everywhere, *configured, *commands}, key=lambda known: (order.index(known.name), known.host))
    nameless = [Known(name) for name in ENTRIES if name not in {known.name for known in named}]
    return [
        Switch(
            known,
            tuple(
                source
                for source, switched_on in (
                    (DEFAULT, known in defaults),
                    (CONFIGURED, known in configured),
                    (COMMANDED, commands.get(known, False)),
                )
                if switched_on
            ),
        )
        for known in (*named, *nameless)
    ]


def switch(store: Store, known: Known, *, enabled: bool, now: float) -> None:
    """Switch a known client on or off, from the next request on.

    One that is switched off is off for those of them, too, that a window was opened for, or let in.
    """
    with store.transaction() as db:
        db.execute(
            "INSERT OR REPLACE INTO known_clients (name, enabled, changed_at) VALUES (?, ?, ?)",
            (str(known), int(enabled), now),
        )
        if not enabled:
            for row in db.execute("SELECT opened_for FROM enrolment").fetchall():
                db.execute("UPDATE enrolment SET opened_for = ?", (_without(known, row["opened_for"]),))
            for row in db.execute("SELECT id, let_in_as FROM clients WHERE let_in_as != ''").fetchall():
                left = _without(known, row["let_in_as"])
                db.execute("UPDATE clients SET let_in_as = ? WHERE id = ?", (left, row["id"]))


def still_let_in(db: sqlite3.Connection, let_in_as: str, since: float) -> str:
    """Return those known clients, as kept text, that no command has switched off since then.

    It is for what the database does not hold: what a client or a browser carries.
    """
    rows = db.execute("SELECT name FROM known_clients WHERE enabled = 0 AND changed_at > ?", (since,)).fetchall()
    off = {row["name"] for row in rows}
    return " ".join(name for name in let_in_as.split() if name not in off)


def _without(known: Known, names: str) -> str:
    return " ".join(name for name in names.split() if name != str(known))


def _defaults(commands: Mapping[Known, bool]) -> list[Known]:
    return [Known(name) for name, entry in ENTRIES.items() if entry.default and commands.get(Known(name), True)]


def _switch_on(known: Sequence[Known]) -> str:
    if len(known) == 1:
        whose = f"your {known[0].title}" if known[0].host else known[0].title
        return (
            f"if it is {whose}, run `sudo opencode-gateway clients enable {known[0]}`,"
            f" or for one window `sudo opencode-gateway clients allow --for {known[0]}`"
        )
    other = f"; if it is another program of yours, {_ANY_PROGRAM}" if all(one.entry.loopback for one in known) else ""
    return (
        f"if it is one of {', '.join(map(str, known))}, run `sudo opencode-gateway clients enable NAME`,"
        f" or for one window `sudo opencode-gateway clients allow --for NAME`{other}"
    )


def _kind(uri: str) -> str:
    """Return what people know of an address: its host, or what it is if it has none. One line, and short."""
    if is_loopback(uri):
        return "a program on one's own machine"
    host = _netloc(uri)
    if uri.startswith(("https://", "http://")) and host:
        return _plain(host)
    scheme = uri.partition(":")[0]
    return f"the scheme {_plain(scheme)}:" if scheme != uri else "no address at all"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.:@\[\]+-]", "?", text[:80])


def _netloc(uri: str) -> str:
    try:
        return urlsplit(uri).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _without_port(uri: str) -> str:
    if not is_loopback(uri):
        return uri
    parts = urlsplit(uri)
    host = parts.netloc.removesuffix(f":{parts.port}") if parts.port is not None else parts.netloc
    return parts._replace(netloc=host, path=parts.path or "/").geturl()
