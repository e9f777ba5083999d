"""What several commands share: the files that they work on, and how they ask and show.

They work on the same files as the service, at the same time, and what they change counts from its next request on.
"""

from __future__ import annotations

# anyio and click import these when they need them: too late for root's Python, once this program is somebody else.
import asyncio  # noqa: F401
import getpass  # noqa: F401
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from opencode_common import command_line
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.configuration import PasswordSignIn, load_configuration
from opencode_gateway.errors import CommandRefused, StoreError
from opencode_gateway.logs import escaped
from opencode_gateway.store import FILE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance

    from opencode_gateway.configuration import Configuration
    from opencode_gateway.people.users import Users

_SETTINGS: Final = f"{__name__}.settings"
json_option = command_line.json_option("Times are seconds since the epoch.")
capability_option = click.option(
    "--capability",
    "capabilities",
    type=click.Choice(CAPABILITIES),
    multiple=True,
    help="What may be done with it at most; several are allowed.",
)


def settings_of(config: Path) -> Configuration:
    """Read `gateway.json`, and be the owner of its data directory from then on, if root runs this command.

    The service's account can put links into that directory, and root would follow them. It is read once: its owner
    perhaps cannot read it.

    Raises:
        ConfigError: it is missing or wrong.
        StoreError: there is no data directory.
        Refused: root may not become its owner here.
    """
    kept = click.get_current_context().meta
    if _SETTINGS not in kept:
        configuration = load_configuration(config)
        _become_owner_of(configuration.data_dir)
        kept[_SETTINGS] = configuration
    settings: Configuration = kept[_SETTINGS]
    return settings


def _become_owner_of(directory: Path) -> None:
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat()
    except OSError as error:
        raise StoreError(
            f"{directory} cannot be used: {error.strerror}; see that it is there and belongs to the service"
        ) from error
    if owner.st_uid == 0:
        return
    try:
        os.setgroups([])
        # Files are made with mode 0600: their group is of no use, and root's is not to be kept.
        os.setgid(owner.st_gid or owner.st_uid)
        os.setuid(owner.st_uid)
    except OSError as error:
        raise CommandRefused(f"root may not become uid {owner.st_uid} here: run this as that account") from error


@contextmanager
def opened_store(config: Path) -> Iterator[Store]:
    """Give the database that the service of this `gateway.json` uses."""
    store = Store(settings_of(config).data_dir / FILE_NAME)
    try:
        yield store
    finally:
        store.close()


def users_of(config: Path) -> Users:
    """Return the people of this `gateway.json`.

    Raises:
        Refused: they log in elsewhere.
    """
    from opencode_gateway.people.users import Users  # noqa: PLC0415 # argon2 and TOTP, which other commands do not need

    configuration = settings_of(config)
    if not isinstance(configuration.sign_in, PasswordSignIn):
        raise CommandRefused(
            f"people log in with {configuration.sign_in.mode} here: list them in sign_in.users of {config}"
        )
    return Users(configuration.sign_in.users_file or configuration.data_dir / "users.json")


def nobody_can_log_in(config: Path) -> bool:
    """Tell whether people are kept here, and there is none who may log in."""
    if not isinstance(settings_of(config).sign_in, PasswordSignIn):
        return False
    return all(user.disabled for user in users_of(config).load().values())


def read_secret(prompt: str, rule: str) -> str:
    """Ask for a new secret twice, or read one line where nobody is there to be asked. It is never an argument.

    `rule`: what it must be like, which is told before.
    """
    if sys.stdin.isatty():
        click.echo(rule, err=True)
        secret: str = click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
        return secret
    line = sys.stdin.readline()
    if not line:
        raise CommandRefused("nothing came on standard input: give the password there, as one line")
    return line.rstrip("\r\n")


def read_line(prompt: str) -> str:
    """Ask for what may be a secret once, or read one line where nobody can be asked. It is never an argument."""
    if sys.stdin.isatty():
        line: str = click.prompt(prompt, hide_input=True, err=True)
        return line
    line = sys.stdin.readline()
    if not line:
        raise CommandRefused(f"nothing came on standard input: give it there, as one line: {prompt}")
    return line.rstrip("\r\n")


def moment(seconds: float | None) -> str:
    """Return a time as lists show it."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def show(rows: Sequence[dict[str, str]], nothing: str) -> None:
    """Print a table, its columns as wide as they must be."""
    if not rows:
        click.echo(nothing)
        return
    # The service's account writes what root's terminal shows.
    rows = [{name: escaped(text) for name, text in row.items()} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for line in ({name: name for name in widths}, *rows):
        click.echo("  ".join(line[name].ljust(width) for name, width in widths.items()).rstrip())


def show_json(things: Sequence[DataclassInstance] | Sequence[dict[str, Any]]) -> None:
    """Print a JSON list."""
    click.echo(json.dumps([thing if isinstance(thing, dict) else asdict(thing) for thing in things], indent=2))
