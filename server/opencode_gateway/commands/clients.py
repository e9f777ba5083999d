"""`opencode-gateway clients`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from opencode_gateway.commands.opened import json_option, moment, opened_store, settings_of, show, show_json
from opencode_gateway.oauth import enrolment
from opencode_gateway.oauth.registrations import shown_id
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.sign_in.throttle import window_code

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def clients() -> None:
    """Admit chat clients, list them, and end what they may do."""


@clients.command()
@click.option(
    "--minutes",
    type=click.IntRange(1, enrolment.MAX_MINUTES),
    default=10,
    show_default=True,
    help="For how long; the window closes itself.",
)
@click.pass_obj
def allow(config: Path, *, minutes: int) -> None:
    """Admit new chat clients for some minutes.

    Open it just before you connect a client, and connect it then: in this time, somebody else's client is admitted
    as well. It still gets nothing without a login here, and the page after the login says which client asks.
    """
    key = signing_key(settings_of(config).data_dir)
    now = time.time()
    with opened_store(config) as store:
        until = enrolment.open_window(store, minutes=minutes, now=now)
    click.echo(f"New clients are admitted until {moment(until)}. To end it before: opencode-gateway clients close")
    click.echo(
        f"If the login page says that there were too many attempts, this code lets you in: {window_code(key, now)}"
    )


@clients.command()
@click.pass_obj
def close(config: Path) -> None:
    """Admit no new client from now on. Those that were admitted stay."""
    with opened_store(config) as store:
        enrolment.close_window(store)
    click.echo("No new client is admitted now.")


@clients.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List the clients that were admitted."""
    with opened_store(config) as store:
        known = enrolment.list_clients(store)
    if as_json:
        show_json(known)
        return
    show(
        [
            {
                "NAME": client.name,
                "SESSIONS": str(client.sessions),
                "SINCE": moment(client.created_at),
                "LAST GRANTED": moment(client.granted_at),
                "RETURNS TO": ", ".join(client.redirect_uris),
                "ID": shown_id(client.id),
            }
            for client in known
        ],
        "No client is known here.",
    )


@clients.command()
@click.argument("client_id", metavar="ID")
@click.pass_obj
def revoke(config: Path, *, client_id: str) -> None:
    """Forget a client and end its sessions at once."""
    with opened_store(config) as store:
        sessions = enrolment.revoke_client(store, client_id)
    click.echo(f"The client is forgotten, and {sessions} session{'' if sessions == 1 else 's'} of it ended.")
