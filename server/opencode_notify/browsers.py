"""Browsers that people have switched notices on in: each is an outlet of its person, kept in the file of people."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opencode_common.database import check_private_file
from opencode_common.files import read_small_file, write_new
from opencode_notify.network import INTERNET, Address, Network
from opencode_notify.notice import Receipt
from opencode_notify.outlets import web_push
from opencode_notify.problems import NotifyError, NotTaken
from opencode_notify.rules import MAX_OUTLETS, OutletSettings, ToldPerson, changing_people
from opencode_notify.web_push_crypto import Vapid, new_vapid_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KIND: Final = "web_push"
KEY_FILE: Final = "push.key"
MAX_BROWSERS: Final = 5
"""Of one person."""
_MAX_KEY_BYTES: Final = 4_000
_MAX_NAME: Final = 30
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9]+")


class Browsers:
    """Adds and removes them.

    Args:
        people: see `rules`; a key of ours is made beside it.
        contact: `mailto:` or https address of who runs this, for the push services.
        network: how an endpoint's name is looked up.
    """

    def __init__(self, people: Path, contact: str, network: Network = INTERNET) -> None:
        self._people = people
        self._key_file = people.with_name(KEY_FILE)
        self._contact = contact
        self._network = network

    def public_key(self) -> str:
        """Return what a browser subscribes with, its `applicationServerKey`. Raises `NotifyError`."""
        try:
            return Vapid(self._key(), self._contact).public_key
        except (ValueError, TypeError):
            again = "remove it, and have people switch notices on again"
            raise NotifyError(f"{self._key_file} is damaged: {again}") from None

    async def add(self, person: str, subscription: Mapping[str, str], device: str) -> str:
        """Tell a person by a browser, too; return what the outlet is called.

        Args:
            person: who is told.
            subscription: `endpoint`, `p256dh` and `auth` as the browser gives them; believed in nothing.
            device: what the person calls it.

        Raises:
            BadSettings: the subscription is none; the text names what is wrong, and quotes nothing.
            NotTaken: the person has enough browsers, or its push service is at no public address.
            NotifyError: the file does not serve.
        """
        given = {name: subscription.get(name, "") for name in ("endpoint", "p256dh", "auth")}
        settings = {**given, "vapid_key": await asyncio.to_thread(self._key), "contact": self._contact}
        web_push.outlet(settings, self._network)
        host = Address.of(given["endpoint"], "endpoint", allow_private=False).url.host
        places = await self._network.places_of(host, allow_private=False)
        if isinstance(places, Receipt):
            raise NotTaken("the push service of this browser is at no public address, or cannot be looked up now")
        return await asyncio.to_thread(self._put, person, settings, device)

    def _put(self, person: str, settings: dict[str, str], device: str) -> str:
        with changing_people(self._people) as people:
            before = people.get(person, ToldPerson())
            kept = tuple(each for each in before.outlets if not _is_at(each, settings["endpoint"]))
            _check_room(kept)
            name = _free_name(device, {each.name for each in kept})
            added = OutletSettings.model_validate({"name": name, "kind": KIND, **settings})
            people[person] = ToldPerson(outlets=(*kept, added), rules=before.rules)
        return name

    def remove(self, person: str, endpoint: str) -> bool:
        """Tell a person no more by the browser with this endpoint; return whether it did. Raises `NotifyError`."""
        with changing_people(self._people) as people:
            before = people.get(person, ToldPerson())
            kept = tuple(each for each in before.outlets if not _is_at(each, endpoint))
            was_one = len(kept) < len(before.outlets)
            if was_one:
                people[person] = ToldPerson(outlets=kept, rules=before.rules)
            return was_one

    def drop(self, person: str, settings: OutletSettings) -> bool:
        """Take out what its push service says is gone, if it is a browser that has not subscribed anew since."""
        if settings.kind != KIND:
            return False
        try:
            return self.remove(person, str(settings.settings().get("endpoint", "")))
        except NotifyError:
            return False

    def _key(self) -> str:
        try:
            if not self._key_file.exists():
                with suppress(FileExistsError):
                    write_new(self._key_file, new_vapid_key().encode())
            check_private_file(self._key_file)
            return read_small_file(self._key_file, _MAX_KEY_BYTES, follow=False).decode("ascii", "replace")
        except OSError as error:
            raise NotifyError(f"{self._key_file} cannot be used: {error.strerror}") from error


def _is_at(outlet: OutletSettings, endpoint: str) -> bool:
    return outlet.kind == KIND and outlet.settings().get("endpoint") == endpoint


def _check_room(kept: tuple[OutletSettings, ...]) -> None:
    if sum(each.kind == KIND for each in kept) >= MAX_BROWSERS:
        raise NotTaken(f"you are told by {MAX_BROWSERS} browsers already: switch it off in one of them first")
    if len(kept) >= MAX_OUTLETS:
        raise NotTaken(f"you have {MAX_OUTLETS} outlets already: have the owner of the relay remove one")


def _free_name(device: str, taken: set[str]) -> str:
    """Return a name of an outlet that says what the person calls their device."""
    plain = _NO_NAME.sub("-", device).strip("-")[:_MAX_NAME].strip("-") or "browser"
    names = (plain if number == 1 else f"{plain}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
