"""All that Apprise reaches: mail, Telegram, Slack, Matrix and more.

Apprise is the extra `notify`, and is loaded with the first outlet of this kind, which takes half a second and 45 MB.

What Apprise logs holds tokens and what services answered, so none of it reaches our log; nor does the reason of a
failure, and so it is told without. Nothing that was sent can be taken back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from opencode_notify.errors import BadOutlet
from opencode_notify.network import CONNECT_SECONDS, Network
from opencode_notify.notice import ACCEPTED, Receipt
from opencode_notify.settings import SenderSettings, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_notify.notice import Notice

AT_ONCE: Final = 2
"""So many threads of one outlet may be busy: one that hangs takes nothing from the others."""
_LOGGERS: Final = ("apprise", "urllib3.connectionpool", "requests_oauthlib")
"""Of Apprise, and of what it sends with: at DEBUG they have addresses and headers."""
_LOCAL: Final = frozenset({"dbus", "glib", "gnome", "growl", "kde", "macosx", "qt", "syslog", "windows"})
"""Schemes that write to the screen or the log of the machine that sends."""


class AppriseSettings(SenderSettings):
    """`url` is an address as Apprise writes them, for example `mailtos://USER:PASSWORD@example.org`."""

    url: SecretStr


class EverythingElse:
    """One service. Each notice has an Apprise object of its own: two of the same object wait for each other."""

    def __init__(self, url: str, *, allow_private: bool, network: Network) -> None:
        self._url = url
        self._allow_private = allow_private
        self._network = network
        self._places = places_of(url)

    async def send(self, notice: Notice) -> Receipt:
        """See `Outlet.send`."""
        if notice.withdrawn:
            return Receipt.of_failure("this kind of outlet can take nothing back")
        try:
            async with asyncio.timeout(self._network.seconds):
                return await self._send(notice)
        except TimeoutError:
            return Receipt.of_failure(f"it did not take it within {self._network.seconds:g} s", retry=True)

    async def withdraw(self, notice: Notice) -> None:
        """Do nothing: what was sent stays."""

    async def _send(self, notice: Notice) -> Receipt:
        service = service_of(self._url)
        for host in hosts_of(service):
            places = await self._network.places_of(host, allow_private=self._allow_private)
            if isinstance(places, Receipt):
                return places
        if not self._places.acquire(blocking=False):
            return Receipt.of_failure("it still has not taken earlier ones", retry=True)
        if await asyncio.wrap_future(self._begun(service, notice)):
            return ACCEPTED
        return Receipt.of_failure(
            "the service did not take it: see that its address and password are right", retry=True
        )

    def _begun(self, service: Any, notice: Notice) -> Future[bool]:
        """Return what comes of a notice, which a thread of its own sends.

        A daemon: neither the loop's end nor the program's waits for a service that hangs.
        """
        outcome: Future[bool] = Future()

        def run() -> None:
            try:
                sent = post(service, notice, self._network.seconds)
            finally:
                self._places.release()
            if outcome.set_running_or_notify_cancel():
                outcome.set_result(sent)

        threading.Thread(target=run, name="outlet", daemon=True).start()
        return outcome


@lru_cache(maxsize=256)
def places_of(url: str) -> threading.BoundedSemaphore:
    """Return the places of an address, the same for each outlet that is made of it: most live for one notice."""
    del url
    return threading.BoundedSemaphore(AT_ONCE)


def post(service: Any, notice: Notice, seconds: float) -> bool:
    """Tell whether a service took a notice. Waits for it."""
    service.socket_connect_timeout = min(CONNECT_SECONDS, seconds)
    service.socket_read_timeout = seconds
    service.redirects = False
    outgoing = apprise().Apprise()
    outgoing.add(service)
    body = "\n\n".join(filter(None, (notice.body, notice.url))) or notice.title
    try:
        return bool(outgoing.notify(body=body, title=notice.title, body_format="text"))
    except Exception:  # noqa: BLE001 - a plugin's fault, whose text may hold anything
        return False


def _nothing(record: logging.LogRecord) -> bool:
    del record
    return False


@cache
def apprise() -> Any:
    """Return the library, silenced. Raises `BadOutlet` where it is not installed."""
    try:
        module = import_module("apprise")
    except ImportError:
        raise BadOutlet("kind: apprise needs another package: install opencode-relay[notify]") from None
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_nothing)
    return module


def service_of(url: str) -> Any:
    """Return a new object of the library's for an address. Raises `BadOutlet`."""
    service = None if urlsplit(url).scheme in _LOCAL else apprise().Apprise.instantiate(url)
    if service is None:
        raise BadOutlet("url: is no address that Apprise can send to: see its list of services")
    return service


def hosts_of(service: Any) -> list[str]:
    """Return the host that an address gives, if any: a service such as Telegram has a token in that place."""
    if "host" not in type(service).template_tokens:
        return []
    # Of a mail's address the host is the domain, which need not be where its server is.
    host = getattr(service, "smtp_host", "") or service.host
    return [host] if host else []


def outlet(settings: Mapping[str, object], network: Network) -> EverythingElse:
    """Return the outlet. Raises `BadOutlet`."""
    given = read(AppriseSettings, settings)
    url = given.url.get_secret_value()
    service_of(url)
    return EverythingElse(url, allow_private=given.allow_private, network=network)
