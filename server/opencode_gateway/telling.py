"""Tells people what needs them, beside the gateway's other work, where the server's journal is to be had."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from opencode_common.database import DatabaseError
from opencode_gateway.calls.servers import OPENCODE
from opencode_gateway.errors import CommandRefused, ConfigError, StoreError
from opencode_notify.browsers import KIND, Browsers
from opencode_notify.errors import BadOutlet
from opencode_notify.failing import said_to
from opencode_notify.ledger import Ledger
from opencode_notify.notice import Notice
from opencode_notify.problems import NotifyError, NotTaken
from opencode_notify.rules import FILE_NAME
from opencode_notify.sender import SEND_SECONDS
from opencode_notify.service import telling
from opencode_notify.tables import DIRECTORY
from opencode_notify.tables import FILE_NAME as LEDGER_NAME
from opencode_pages.parts import ToldAsk, Unavailable
from opencode_pages.paths import TOLD_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from opencode_gateway.calls.servers import Servers
    from opencode_gateway.people.directory import Directory
    from opencode_notify.notice import Outlet
    from opencode_notify.receipts import Receipts
    from opencode_notify.rules import OutletSettings
    from opencode_pages.parts import Subscription, Visitor

_STATE_DIR: Final = "RELAY_STATE_DIR"
_OUTLETS: Final = "opencode_notify.kinds"
_log = logging.getLogger(__name__)


def state_directory(servers: Servers, environ: Mapping[str, str]) -> Path | None:
    """Return where the OpenCode server keeps its journal, if that was said; None: it chooses itself."""
    server = servers.get(OPENCODE)
    named = (server.env.get(_STATE_DIR) if server is not None else None) or environ.get(_STATE_DIR, "")
    return Path(named) if named.startswith("/") else None


def made_outlet(settings: dict[str, Any]) -> Outlet:
    """Return the outlet of such settings, which have a kind.

    Raises:
        Refused: they are none; the message quotes nothing of them.
    """
    try:
        return _outlet_of(settings)
    except ValueError as error:
        raise CommandRefused(f"outlet: {error}") from None


def _outlet_of(settings: dict[str, Any]) -> Outlet:
    try:
        outlets = import_module(_OUTLETS)
    except ModuleNotFoundError as error:
        if error.name != _OUTLETS:
            raise ValueError(f"the package {error.name} is missing: install it beside the gateway") from None
        raise ValueError("this version has no outlets: install a later one") from None
    return cast("Outlet", outlets.outlet_of(settings))


def tried(settings: dict[str, Any]) -> str:
    """Send a message by an outlet, and return why it was not accepted; empty if it was."""
    notice = Notice(
        id=f"test-{secrets.token_hex(6)}",
        title="It works",
        body="This is a message of `sudo opencode-gateway notify test`.",
    )

    async def send() -> str:
        async with asyncio.timeout(SEND_SECONDS):
            receipt = await made_outlet(settings).send(notice)
        return "" if receipt.accepted else receipt.reason

    try:
        return asyncio.run(send())
    except TimeoutError:
        return f"it did not answer within {SEND_SECONDS:.0f} s"


@contextmanager
def opened_ledger(state_dir: Path | None) -> Iterator[Ledger | None]:
    """Give what was told, for a command; None where nothing was yet, or nobody says where the journal is.

    Raises:
        StoreError: it cannot be read.
    """
    if state_dir is None or not (state_dir / DIRECTORY / LEDGER_NAME).exists():
        yield None
        return
    try:
        ledger = Ledger(state_dir / DIRECTORY)
    except (OSError, DatabaseError) as error:
        raise StoreError(f"{state_dir / DIRECTORY / LEDGER_NAME} cannot be read: {_why(error)}") from error
    try:
        yield ledger
    except DatabaseError as error:
        raise StoreError(f"{state_dir / DIRECTORY / LEDGER_NAME} does not serve: {error}") from error
    finally:
        ledger.close()


class Telling:
    """Tells people what needs them, and is the pages' `Told`: takes what they say of it.

    Args:
        data_dir: has the file of who is told what.
        servers: of which the OpenCode server's state directory is taken.
        environ: the gateway's own.
        public_url: of this gateway.
        has_pages: whether it serves pages, to which messages then lead.
        directory: who may come in; None: everybody in the file is told.
    """

    def __init__(
        self,
        data_dir: Path,
        servers: Servers,
        environ: Mapping[str, str],
        public_url: str,
        *,
        has_pages: bool = False,
        directory: Directory | None = None,
    ) -> None:
        self._people = data_dir / FILE_NAME
        self._state_dir = state_directory(servers, environ)
        self._pages = f"{public_url}{TOLD_PATH}/" if has_pages else ""
        parts = urlsplit(public_url)
        self._relay = parts.netloc
        contact = public_url if parts.scheme == "https" else f"mailto:opencode-relay@{parts.hostname}"
        self._browsers = Browsers(self._people, contact)
        self._receipts: Receipts | None = None
        self._directory = directory
        self._told: dict[tuple[str, bool], bool] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell people meanwhile; where that is not possible the log says why, and the gateway serves all the same."""
        if self._state_dir is None:
            _log.info("nobody is told what needs them: set %s for the server %s", _STATE_DIR, OPENCODE)
            yield
            return
        sender = telling(
            self._state_dir,
            self._people,
            _outlet_of,
            page_of=lambda message: self._pages and self._pages + message,
            relay=self._relay,
            drop=self._browsers.drop,
            is_told=self._is_told,
        )
        try:
            self._receipts = await sender.__aenter__()
        except (OSError, DatabaseError) as error:
            _log.warning("nobody is told what needs them: %s: %s", self._state_dir / DIRECTORY, _why(error))
            yield
            return
        try:
            yield
        finally:
            self._receipts = None
            await sender.__aexit__(None, None, None)

    def _is_told(self, login: str, outlet: OutletSettings) -> bool:
        """Tell whether a person may be told by an outlet: who may not look, or not come in, is told nothing.

        The owner may tell somebody who has no login. A browser was added by somebody who had one.
        """
        if self._directory is None:
            return True
        asked = (login, outlet.kind == KIND)
        # While the list of people cannot be read, it is as it was.
        with suppress(ConfigError):
            person = self._directory.find(login)
            self._told[asked] = (
                not {"observe", "approve"}.isdisjoint(person.capabilities)
                if person is not None
                else outlet.kind != KIND and not self._directory.knows(login)
            )
        return self._told.get(asked, False)

    async def opened(self, visitor: Visitor, message: str) -> ToldAsk | None:
        """See `Told.opened`."""
        asks = self._receipts.opened(visitor.login, message) if self._receipts is not None else []
        return ToldAsk(*asks[0]) if len(asks) == 1 else None

    async def shown(self, message: str) -> None:
        """See `Told.shown`."""
        if self._receipts is not None:
            self._receipts.shown(message)

    def failing(self, login: str) -> str:
        """Say to a login, in a line, which outlets of theirs fail; empty if none does."""
        return said_to(self._state_dir, login)

    def pushes(self) -> GatewayPushes | None:
        """Return what takes browsers; None where nobody would be told by them, or the log says why not."""
        if self._state_dir is None:
            return None
        try:
            return GatewayPushes(self._browsers, self._browsers.public_key())
        except NotifyError as error:
            _log.warning("no browser can be told what needs its person: %s", error)
            return None


class GatewayPushes:
    """The pages' `Pushes`: browsers are outlets of their person, in the file of people.

    Args:
        browsers: of all people.
        public_key: see `Pushes`.
    """

    def __init__(self, browsers: Browsers, public_key: str) -> None:
        self._browsers = browsers
        self.public_key = public_key

    async def add(self, visitor: Visitor, subscription: Subscription, device: str) -> None:
        """See `Pushes.add`."""
        try:
            await self._browsers.add(visitor.login, asdict(subscription), device)
        except BadOutlet:
            raise Unavailable("This browser sent no subscription that can be used.") from None
        except NotifyError as error:
            raise _unavailable(error) from error

    async def remove(self, visitor: Visitor, endpoint: str) -> None:
        """See `Pushes.remove`."""
        try:
            await asyncio.to_thread(self._browsers.remove, visitor.login, endpoint)
        except NotifyError as error:
            raise _unavailable(error) from error


def _unavailable(error: NotifyError) -> Unavailable:
    text = str(error)
    if isinstance(error, NotTaken):
        return Unavailable(f"{text[:1].upper()}{text[1:]}.")
    _log.warning("a browser cannot be added or removed: %s", text)
    return Unavailable("This cannot be kept just now; the log of the relay says why.")


def _why(error: OSError | DatabaseError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
