"""What each person wants to be told, when and where: a JSON file that nobody else may read, as it holds addresses.

{"ann": {"outlets": [{"name": "phone", "kind": "ntfy", …}], "rules": {"quiet": {"from": "22:00", "until": "07:00",
"zone": "Europe/Berlin"}}}}

Every rule has a default. What an outlet's other keys mean is the outlet's own to say.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator, model_validator

from opencode_common.database import check_private_file
from opencode_common.files import read_small_file, write_atomically
from opencode_common.validation import describe
from opencode_notify.problems import NotifyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Event = Literal["permission", "answer", "done", "failed", "lost", "back"]
"""`permission` and `answer`: an ask waits for one. `lost`: a machine went away while it was busy."""
EVENTS: Final[tuple[Event, ...]] = ("permission", "answer", "done", "failed", "lost", "back")
FILE_NAME: Final = "notify.json"
_MAX_BYTES: Final = 1_000_000
MAX_OUTLETS: Final = 10

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Quiet(_Part):
    """Hours of each day in which nothing is sent; what comes in them is told at their end, if it still waits."""

    begins: Annotated[time, Field(alias="from")]
    ends: Annotated[time, Field(alias="until")]
    zone: str
    """As `Europe/Berlin`: the person's own, whatever the relay's clock shows."""

    @field_validator("zone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (OSError, ValueError, KeyError):
            raise ValueError("no time zone has this name: write one as Europe/Berlin") from None
        return zone

    @model_validator(mode="after")
    def _are_plain(self) -> Quiet:
        if self.begins.tzinfo or self.ends.tzinfo:
            raise ValueError("`from` and `until` are written as 22:00, and `zone` says where")
        return self

    def end_at(self, now: float) -> float | None:
        """Return when the quiet hours end that `now` is in (epoch seconds); None: it is in none."""
        zone = ZoneInfo(self.zone)
        here = datetime.fromtimestamp(now, UTC).astimezone(zone)
        for days in (-1, 0):
            begin = datetime.combine(here.date() + timedelta(days), self.begins, zone)
            is_overnight = self.ends <= self.begins
            end = datetime.combine(begin.date() + timedelta(is_overnight), self.ends, zone)
            # In seconds, as two times of one zone are compared by what its clocks show.
            if begin.timestamp() <= now < end.timestamp():
                return end.timestamp()
        return None


class NoticeRules(_Part):
    """What one person wants. The defaults tell what needs them, what failed, and long work that is done."""

    events: tuple[Event, ...] = ("permission", "answer", "done", "failed", "lost")
    machines: tuple[str, ...] = ("*",)
    """Patterns of instances' names, as `laptop-*`."""
    done_after_seconds: Annotated[float, Field(ge=0)] = 120.0
    """A turn that took less is not told to be done: whoever began it is still there."""
    quiet: Quiet | None = None
    grouping_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """The first is told at once, and what follows within this time in one message; 0: each by itself."""
    escalate_after_minutes: Annotated[float, Field(gt=0, le=1440)] | None = 10.0
    """An ask that still waits and was not opened is told by the next outlet, too; None: never."""
    withdraw: bool = True
    """Take back what was settled elsewhere, where an outlet can."""
    show_title: bool = False
    """Quote the session's title."""
    show_question: bool = False
    """Quote what is asked."""
    show_command: bool = False
    """Quote what would be run or changed."""

    def wants(self, event: Event, instance: str) -> bool:
        """Whether such an event there is to be told."""
        return event in self.events and any(fnmatchcase(instance, pattern) for pattern in self.machines)

    def quiet_until(self, now: float) -> float | None:
        """Return when the quiet hours end that `now` is in; None: it is in none."""
        return None if self.quiet is None else self.quiet.end_at(now)


class OutletSettings(BaseModel):
    """An outlet by its name and kind; what else it needs is in the other keys, which may be secrets."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: _Name
    kind: _Name

    def settings(self) -> dict[str, Any]:
        """Return all that was written, as the file has it."""
        return self.model_dump()

    def of_kind(self) -> dict[str, Any]:
        """Return what an outlet is made of: all but our name of it."""
        return self.model_dump(exclude={"name"})

    def __repr__(self) -> str:
        """It without its address."""
        return f"OutletSettings(name={self.name!r}, kind={self.kind!r})"

    __str__ = __repr__


class ToldPerson(_Part):
    """One who is told. Outlets are tried in their order: the first at once, the others when that is not opened."""

    outlets: Annotated[tuple[OutletSettings, ...], Field(max_length=MAX_OUTLETS)] = ()
    rules: NoticeRules = NoticeRules()

    @field_validator("outlets")
    @classmethod
    def _have_names(cls, outlets: tuple[OutletSettings, ...]) -> tuple[OutletSettings, ...]:
        names = [outlet.name for outlet in outlets]
        if len(set(names)) < len(names):
            raise ValueError("two outlets have the same name: each needs one of its own")
        return outlets

    def outlet(self, name: str) -> OutletSettings | None:
        """Return the outlet of a name."""
        return next((outlet for outlet in self.outlets if outlet.name == name), None)


class _People(RootModel[dict[str, ToldPerson]]):
    pass


def load_people(path: Path) -> dict[str, ToldPerson]:
    """Read who is told what; nobody where there is no file.

    Raises:
        NotifyError: the file is open to others, cannot be read, or is wrong; nothing of it is quoted.
    """
    try:
        check_private_file(path)
        return _People.model_validate_json(read_small_file(path, _MAX_BYTES, follow=False)).root
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotifyError(f"{path} cannot be used: {error.strerror}") from error
    except ValidationError as error:
        raise NotifyError(f"{path}: {describe(error)}") from None


@contextmanager
def changing_people(path: Path) -> Iterator[dict[str, ToldPerson]]:
    """Give who is told what, to be changed, and write it at the end. One process at a time; it waits for others.

    Raises:
        NotifyError: the file cannot be read or written.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotifyError(f"{path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # until it is closed
        people = load_people(path)
        before = dict(people)
        yield people
        if people != before:
            _save_people(path, people)
    finally:
        os.close(directory)


def _save_people(path: Path, people: dict[str, ToldPerson]) -> None:
    """Write who is told what, for its owner alone. Raises `NotifyError`."""
    document = {
        name: {
            "outlets": [outlet.settings() for outlet in person.outlets],
            "rules": person.rules.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
        for name, person in people.items()
    }
    try:
        write_atomically(path, json.dumps(document, indent=2).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise NotifyError(f"{path} cannot be written: {error.strerror}") from error
