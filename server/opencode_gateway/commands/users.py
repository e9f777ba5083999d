"""`opencode-gateway users`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opencode_common.command_line import Group
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.commands.forgetting import forget_browsers, forget_person
from opencode_gateway.commands.opened import (
    capability_option,
    json_option,
    moment,
    opened_store,
    read_secret,
    settings_of,
    show,
    show_json,
    users_of,
)
from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.sessions import revoke_sessions
from opencode_gateway.sign_in import passkey_rows
from opencode_gateway.sign_in.one_time_codes import app_uri, new_secret
from opencode_gateway.sign_in.passwords import PASSWORD_RULE, Passwords
from opencode_pages.paths import INBOX_PATH

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.capabilities import Capability


@click.group(cls=Group)
def users() -> None:
    """Add, change, list and remove the people who may log in with a password."""


@users.command()
@click.argument("name")
@capability_option
@click.pass_obj
def add(config: Path, *, name: str, capabilities: tuple[Capability, ...]) -> None:
    """Add a person, whose password is asked for or read from standard input.

    Without --capability they may do everything.
    """
    import segno  # noqa: PLC0415 # as in `totp`

    passwords = Passwords()  # anyio loads itself by pieces: whom `users_of` makes of root perhaps cannot read them
    people = users_of(config)
    people.add(name, passwords.hash(read_secret(f"Password of {name}", PASSWORD_RULE)), capabilities or CAPABILITIES)
    # Whoever had this name before and was taken out of the file by hand is another person.
    _forget_passkeys(config, name)
    forget_browsers(config, name)
    _end_sessions(config, name)
    click.echo(f"{name} can log in.")
    address = settings_of(config).public_url
    # The address alone: whoever photographs the screen learns nothing that is a secret.
    segno.make(address, error="l").terminal(compact=True)
    click.echo(f"On a phone, scan it or open {address}: {address}{INBOX_PATH} is where {name} sees what needs them.")
    click.echo(f"A chat client of theirs takes {settings_of(config).resource}")


@users.command()
@click.argument("name")
@click.pass_obj
def remove(config: Path, *, name: str) -> None:
    """Remove a person, their passkeys and what tells them, and end their sessions at once."""
    users_of(config).remove(name)
    _forget_passkeys(config, name)
    click.echo(f"{name} is removed, and {_end_sessions(config, name)} ended.")
    forget_person(config, name)


@users.command()
@click.argument("name")
@click.pass_obj
def password(config: Path, *, name: str) -> None:
    """Set a new password, which is asked for or read from standard input, and end the person's sessions."""
    passwords = Passwords()  # as above
    people = users_of(config)
    people.set_password(name, passwords.hash(read_secret(f"New password of {name}", PASSWORD_RULE)))
    click.echo(f"The password of {name} is changed, and {_end_sessions(config, name)} ended.")


@users.command()
@click.argument("name")
@click.option("--off", is_flag=True, help="Ask for no one-time codes any more.")
@click.pass_obj
def totp(config: Path, *, name: str, off: bool) -> None:
    """Demand a one-time code of an authenticator app at each login from now on."""
    import segno  # noqa: PLC0415 # for this command alone; whom `users_of` makes of root perhaps cannot read it

    people = users_of(config)
    if off:
        people.set_totp(name, None)
        click.echo(f"{name} logs in with the password alone.")
        return
    secret = new_secret()
    people.set_totp(name, secret)
    uri = app_uri(name, secret)
    segno.make(uri, error="l").terminal(compact=True)
    click.echo(f"Scan it with the authenticator app of {name}, or type the key there: {secret}")
    click.echo("It is not shown again.")


@users.command()
@click.argument("name")
@click.pass_obj
def disable(config: Path, *, name: str) -> None:
    """Let a person in no more, tell them nothing, and end their sessions at once, without forgetting them."""
    users_of(config).set_disabled(name, disabled=True)
    click.echo(f"{name} is disabled, and {_end_sessions(config, name)} ended.")


@users.command()
@click.argument("name")
@click.pass_obj
def enable(config: Path, *, name: str) -> None:
    """Let a person in again who was disabled."""
    users_of(config).set_disabled(name, disabled=False)
    click.echo(f"{name} can log in again.")


@users.command()
@click.argument("name")
@capability_option
@click.pass_obj
def capabilities(config: Path, *, name: str, capabilities: tuple[Capability, ...]) -> None:
    """Set what a person may do at most. What they lose is lost to their sessions at once."""
    if not capabilities:
        raise click.UsageError("give at least one --capability")
    users_of(config).set_capabilities(name, capabilities)
    click.echo(f"{name} may do: {', '.join(each for each in CAPABILITIES if each in capabilities)}.")


@users.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List the people who are in the file."""
    people = sorted(users_of(config).load().values(), key=lambda user: user.name)
    if as_json:
        show_json(
            [
                {
                    "name": user.name,
                    "capabilities": user.capabilities,
                    "totp": user.totp_secret is not None,
                    "disabled": user.disabled,
                }
                for user in people
            ]
        )
        return
    show(
        [
            {
                "NAME": user.name,
                "CAPABILITIES": " ".join(user.capabilities),
                "ONE-TIME CODES": "yes" if user.totp_secret else "no",
                "STATE": "disabled" if user.disabled else "can log in",
            }
            for user in people
        ],
        "Nobody can log in yet: `sudo opencode-gateway users add NAME`.",
    )


@users.command()
@click.argument("name")
@json_option
@click.pass_obj
def passkeys(config: Path, *, name: str, as_json: bool) -> None:
    """List a person's passkeys, which they add themselves on the gateway's page /account."""
    with opened_store(config) as store:
        found = passkey_rows.passkeys(store, name)
    if as_json:
        show_json(found)
        return
    show(
        [
            {
                "ID": passkey.id,
                "DEVICE": passkey.name,
                "AT": passkey.site,
                "SINCE": moment(passkey.created_at),
                "LAST USED": moment(passkey.used_at),
            }
            for passkey in found
        ],
        f"{name} has no passkey.",
    )


@users.command("passkey-remove")
@click.argument("name")
@click.argument("passkey_id", metavar="ID")
@click.pass_obj
def remove_passkey(config: Path, *, name: str, passkey_id: str) -> None:
    """Remove a passkey, as of a device that was lost. Whoever logged in with it stays so: see `sessions revoke`."""
    with opened_store(config) as store, store.transaction() as db:
        device = passkey_rows.remove(db, name, passkey_id)
    if device is None:
        raise CommandRefused(
            f"{name[:200]!r} has no passkey {passkey_id[:200]!r}: see `sudo opencode-gateway users passkeys NAME`"
        )
    click.echo(f"The passkey {passkey_id} of {name} ({device}) is removed.")


def _forget_passkeys(config: Path, name: str) -> None:
    with opened_store(config) as store, store.transaction() as db:
        passkey_rows.remove_all(db, name)


def _end_sessions(config: Path, name: str) -> str:
    """End a person's sessions; return how many those were, in words."""
    with opened_store(config) as store:
        ended = revoke_sessions(store, login=name)
    return f"{ended} session{'' if ended == 1 else 's'}"
