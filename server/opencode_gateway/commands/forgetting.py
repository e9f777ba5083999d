"""What commands that shut somebody out take back besides: by what that person is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_gateway.commands.opened import settings_of
from opencode_gateway.errors import CommandRefused
from opencode_notify.browsers import KIND
from opencode_notify.problems import NotifyError
from opencode_notify.rules import FILE_NAME, ToldPerson, changing_people

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def forget_person(config: Path, name: str) -> None:
    """Tell a person nothing any more, and forget their rules. Raises `CommandRefused`."""
    _changed(config, lambda login, person: None if login == name else person)


def forget_browsers(config: Path, name: str | None) -> int:
    """Tell a person, or with None everybody, no more by browsers; return how many those were.

    Raises `CommandRefused`. Browsers were added in sessions, and whoever stole one may have added theirs.
    """
    forgotten = 0

    def without(login: str, person: ToldPerson) -> ToldPerson:
        nonlocal forgotten
        if name not in {None, login}:
            return person
        kept = tuple(each for each in person.outlets if each.kind != KIND)
        forgotten += len(person.outlets) - len(kept)
        return ToldPerson(outlets=kept, rules=person.rules)

    _changed(config, without)
    return forgotten


def _changed(config: Path, change: Callable[[str, ToldPerson], ToldPerson | None]) -> None:
    path = settings_of(config).data_dir / FILE_NAME
    if not path.exists():
        return
    try:
        with changing_people(path) as people:
            for login, person in list(people.items()):
                changed = change(login, person)
                if changed is None:
                    del people[login]
                else:
                    people[login] = changed
    except NotifyError as error:
        raise CommandRefused(f"who is told what was not changed: {error}; mend it, then run this again") from error
