"""All pages: the inbox, the asks, and what a browser needs besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_pages import assets
from opencode_pages.asks import AskPages
from opencode_pages.devices import DevicePages, WorkerReceipts
from opencode_pages.inbox import InboxPages
from opencode_pages.visits import Visits

if TYPE_CHECKING:
    from starlette.routing import Route

    from opencode_pages.parts import Door, Pushes, Signatures, Source, Told


def routes(
    source: Source,
    door: Door,
    *,
    pushes: Pushes | None = None,
    told: Told | None = None,
    signatures: Signatures | None = None,
) -> list[Route]:
    """Return the routes of all pages and files.

    Args:
        source: what is shown, and takes decisions.
        door: who may come in.
        pushes: notifies browsers; None: pages do not offer it.
        signatures: of people's passkeys, over decisions; None: none is wanted.
        told: what became of messages; None: none leads here.
    """
    visits = Visits(door, has_account=signatures is not None)
    found = [
        *InboxPages(source, visits, pushes, told).routes(),
        *AskPages(source, visits, signatures).routes(),
        *visits.routes(),
        *assets.routes(),
    ]
    if pushes is not None:
        found += DevicePages(pushes, visits).routes()
    if told is not None:
        found += WorkerReceipts(told).routes()
    return found
