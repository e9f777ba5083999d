"""One copy of the server, put together: its fleet, its journal, and who of several copies leads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from opencode_fleet.delivery import Deliverer
from opencode_fleet.drive import Driver
from opencode_fleet.fleet import Fleet
from opencode_fleet.outbox import Outbox
from opencode_fleet.recorder import Recorder
from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from opencode_mcp.attachments import upload_page
from opencode_mcp.face import Face
from opencode_notify.failing import said_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.settings import ServerSettings
    from opencode_fleet.transports.base import Transport


class Copy:
    """What a process of the server works with; its `face` is of use while it is `running`."""

    def __init__(self, settings: ServerSettings, transport: Transport) -> None:
        fleet = Fleet(transport, settings)
        self._leader = Leader(settings.state_dir)
        self._journal = Journal(settings.state_dir, settings.journal_days, self._leader)
        outbox = Outbox(self._journal, settings.journal_days)
        self._recorder = Recorder(fleet, self._journal, self._leader, carried=outbox.carried)
        driver = Driver(fleet, settings.send_timeout, self._recorder.decisions, self._journal)
        self._deliverer = Deliverer(fleet, driver.sender, outbox, self._journal, self._leader)
        uploads = upload_page(settings.uploads_dir, settings.uploads_url)
        self.face = Face(
            fleet,
            driver,
            self._journal,
            outbox=outbox,
            call_seconds=settings.send_timeout,
            uploads=uploads,
            failing=partial(said_to, settings.state_dir),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the fleet and write down what happens, until the block ends."""
        async with (
            self._journal.watching(),
            self._leader.standing(),
            self._recorder.running(),
            self.face.fleet.running(),
            self._deliverer.running(),
        ):
            yield
