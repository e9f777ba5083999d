"""Clients that are known by name: what `known_clients.toml` says, and how settings and commands name them.

Addresses are compared as they are written, letter by letter: nothing is decoded, folded or put in order, so that
nothing can be smuggled past. What varies is one segment of plain signs, the port of a loopback address, and the host
of a client that lives at somebody's own.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

if TYPE_CHECKING:
    from collections.abc import Iterator

ID: Final = "{id}"
_SEGMENT: Final = r"[A-Za-z0-9_~:-]{1,128}"
_HOST: Final = re.compile(
    r"(?=.{1,253}(?::|\Z))[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
    r"(?::[0-9]{1,5})?"
)
_LOCAL_HOSTS: Final = ("127.0.0.1", "localhost")
_LOOPBACK: Final = r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?"

_SEGMENTS: Final = r"/(?:(?:[A-Za-z0-9_-]+|\{id\})(?:/(?:[A-Za-z0-9_-]+|\{id\}))*)?"
_NAME: Final = r"[a-z0-9-]+(?:\.[a-z0-9-]+)+"

_Path = Annotated[str, Field(pattern=f"^{_SEGMENTS}$")]
_Https = Annotated[str, Field(pattern=f"^https://{_NAME}{_SEGMENTS}$")]
_Private = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[A-Za-z0-9._/-]+$")]
_HostName = Annotated[str, Field(pattern=f"^{_NAME}$")]
_Origin = Annotated[str, Field(pattern=f"^(?:https://{_NAME}|http://(?:localhost|127\\.0\\.0\\.1):[0-9]+)$")]


class KnownClient(BaseModel):
    """One client. The fields are told at the top of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    default: bool = False
    https: tuple[_Https, ...] = ()
    private: tuple[_Private, ...] = ()
    loopback: tuple[_Path, ...] = ()
    own_host: tuple[_Path, ...] = ()
    document_hosts: tuple[_HostName, ...] = ()
    origins: tuple[_Origin, ...] = ()
    called: tuple[str, ...] = ()
    source: Annotated[str, Field(min_length=1)]

    @field_validator("private")
    @classmethod
    def _own_scheme(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if any(address.startswith(("http:", "https:", "javascript:", "data:", "file:")) for address in addresses):
            raise ValueError("must have a scheme that is the client's own")
        return addresses


def _read() -> dict[str, KnownClient]:
    text = resources.files(__package__).joinpath("known_clients.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], KnownClient]).validate_python(
        tomllib.loads(text)
    )


ENTRIES: Final = _read()
"""By the name that settings and commands use."""


@dataclass(frozen=True)
class Known:
    """A known client as it is switched on: with the host that it lives at, if it is one of those.

    Its text is what settings and commands write: `vscode`, `librechat@chat.example.org`.
    """

    name: str
    host: str = ""

    @property
    def entry(self) -> KnownClient:
        """What is known of it."""
        return ENTRIES[self.name]

    @property
    def title(self) -> str:
        """How people know it."""
        return f"{self.entry.title} at {self.host}" if self.host else self.entry.title

    def has(self, uri: str) -> bool:
        """Tell whether this client has codes sent to `uri`, which is taken as it is written."""
        return _pattern(self.name, self.host).fullmatch(uri) is not None

    def addresses(self) -> list[str]:
        """Return its redirect addresses for people to read."""
        own = [f"{_scheme(self.host)}://{self.host or 'HOST'}{path}" for path in self.entry.own_host]
        loopback = [f"http://127.0.0.1:PORT{path}" for path in self.entry.loopback]
        return [*self.entry.https, *self.entry.private, *own, *loopback]

    def __str__(self) -> str:
        return f"{self.name}@{self.host}" if self.host else self.name


def known_client(text: str) -> Known:
    """Return the client that a setting or a command names.

    Raises:
        ValueError: there is none of that name, or its host is missing or is too much. The message says what to write.
    """
    name, at, host = text.partition("@")
    entry = ENTRIES.get(name)
    if entry is None:
        near = get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.4)
        raise ValueError(
            f"no client is known as {text[:80]!r}: {'the nearest are' if near else 'there are'} "
            f"{', '.join(near or ENTRIES)}"
        )
    if not entry.own_host:
        if at:
            raise ValueError(f"{entry.title} has no host of its own: write {name}")
        return Known(name)
    host = host.lower()
    if not _HOST.fullmatch(host):
        raise ValueError(f"{entry.title} lives at your own host: write {name}@HOST, such as {name}@chat.example.org")
    return Known(name, host)


def known_clients(texts: str) -> list[Known]:
    """Return the clients of a list that is kept as text, without those that are no longer known."""
    return list(_readable(texts.split()))


def _readable(names: list[str]) -> Iterator[Known]:
    for name in names:
        try:
            yield known_client(name)
        except ValueError:
            continue


def owners_of(uri: str, client_name: str = "") -> list[Known]:
    """Return the known clients that have codes sent to `uri`, on or off; those that `client_name` fits, if any do.

    The name is what a stranger says: it chooses what is proposed, and nothing else.
    """
    found = [known for known in _candidates(uri) if known.has(uri)]
    said = client_name.casefold()
    named = [
        known
        for known in found
        if any(title.casefold() in said for title in (known.name, known.entry.title, *known.entry.called))
    ]
    # "Claude Code" is more of a name than "Claude" is.
    longest = max((len(known.entry.title) for known in named), default=0)
    return [known for known in named if len(known.entry.title) == longest] or found


def hosts_document(host: str) -> list[Known]:
    """Return the known clients that have a client-id metadata document on `host`."""
    return [Known(name) for name, entry in ENTRIES.items() if host in entry.document_hosts]


def _candidates(uri: str) -> Iterator[Known]:
    host = uri.partition("://")[2].partition("/")[0]
    for name, entry in ENTRIES.items():
        if not entry.own_host:
            yield Known(name)
        elif _HOST.fullmatch(host):
            yield Known(name, host)


def _scheme(host: str) -> str:
    return "http" if host.partition(":")[0] in _LOCAL_HOSTS else "https"


@lru_cache(maxsize=64)
def _pattern(name: str, host: str) -> re.Pattern[str]:
    entry = ENTRIES[name]
    own = [f"{_scheme(host)}://{host}{path}" for path in entry.own_host] if host else []
    fixed = [re.escape(address).replace(re.escape(ID), _SEGMENT) for address in (*entry.https, *entry.private, *own)]
    # The slash of the root may be missing (RFC 3986, 6.2.3).
    local = [
        _LOOPBACK + ("/?" if path == "/" else re.escape(path).replace(re.escape(ID), _SEGMENT))
        for path in entry.loopback
    ]
    return re.compile("|".join(f"(?:{pattern})" for pattern in (*fixed, *local)))
