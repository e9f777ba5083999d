"""`opencode-gateway clients`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from opencode_common.command_line import Group
from opencode_gateway.commands.opened import (
    json_option,
    moment,
    nobody_can_log_in,
    opened_store,
    settings_of,
    show,
    show_json,
)
from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth import enrolment
from opencode_gateway.oauth.known_clients import ID, known_client
from opencode_gateway.oauth.redirects import RedirectRules, commanded, switch, switches
from opencode_gateway.oauth.registrations import shown_id
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.sign_in.throttle import window_code

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.oauth.known_clients import Known
    from opencode_gateway.oauth.redirects import Switch


def _one(context: click.Context, parameter: click.Parameter, name: str) -> Known:
    del context, parameter
    try:
        return known_client(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _several(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[Known, ...]:
    return tuple(_one(context, parameter, name) for name in names)


_named = click.argument("known", metavar="NAME", callback=_one)


@click.group(cls=Group)
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
@click.option(
    "--for",
    "known",
    metavar="NAME",
    callback=_several,
    multiple=True,
    help="A known client that is admitted in this window even if it is not switched on, as claude-code; several may"
    " be named. `clients known` lists them.",
)
@click.pass_obj
def allow(config: Path, *, minutes: int, known: tuple[Known, ...]) -> None:
    """Admit new chat clients for some minutes.

    Open it just before you connect a client, and connect it then: in this time, somebody else's client is admitted
    as well. It still gets nothing without a login here, and the page after the login says which client asks.
    """
    import opencode_gateway.people.users  # noqa: F401, PLC0415 # heavy, and needed before root becomes somebody else

    nobody = nobody_can_log_in(config)
    key = signing_key(settings_of(config).data_dir)
    now = time.time()
    with opened_store(config) as store:
        until = enrolment.open_window(store, minutes=minutes, now=now, known=known)
    click.echo(f"New clients are admitted until {moment(until)}. `sudo opencode-gateway clients close` ends that.")
    if nobody:
        click.echo(
            "Nobody can log in yet, so no client gets further than the login page: `sudo opencode-gateway users add"
            " NAME` adds a person."
        )
    if known:
        titles = " and ".join(one.title for one in known)
        click.echo(
            f"{titles} can connect in this window, whether switched on or not. What connects now goes on working"
            " afterwards; `sudo opencode-gateway clients revoke ID` ends it."
        )
    click.echo(
        f"If the login page says that there were too many attempts, this code lets you in: {window_code(key, now)}"
    )


@clients.command()
@click.pass_obj
def close(config: Path) -> None:
    """Admit no new client from now on, nor one that began to connect and that nobody has consented to yet.

    Those that somebody has consented to stay.
    """
    with opened_store(config) as store:
        enrolment.close_window(store, now=time.time())
        always = settings_of(config).clients.enrolment == "open"
    click.echo(
        f"The window is closed, but new clients are admitted all the same: `clients.enrolment` of {config} is open."
        if always
        else "No new client is admitted now, nor one that began to connect and that nobody has consented to yet."
    )


@clients.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List the clients that were admitted, and say which known clients may be."""
    with opened_store(config) as store:
        admitted = enrolment.list_clients(store)
    if as_json:
        show_json(admitted)
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
            for client in admitted
        ],
        "No client was admitted yet.",
    )
    click.echo(
        f"Switched on: {describe_switches(_switches(config))}. `sudo opencode-gateway clients known` lists all."
    )


@clients.command("known")
@json_option
@click.pass_obj
def known_(config: Path, *, as_json: bool) -> None:
    """List the clients that are known by name, whether each is on, and what says so.

    That is `default`, `gateway.json` (its `clients.known`), or `command` (`clients enable`).
    """
    found = _switches(config)
    if as_json:
        show_json(
            [
                {
                    "name": str(one.known),
                    "title": one.known.title,
                    "on": bool(one.sources),
                    "sources": list(one.sources),
                    "addresses": one.known.addresses(),
                }
                for one in found
            ]
        )
        return
    show(
        [
            {
                "NAME": f"{one.known}@HOST" if one.known.entry.own_host and not one.known.host else str(one.known),
                "STATE": "on" if one.sources else "off",
                "FROM": ", ".join(one.sources) or "-",
                "CLIENT": one.known.title,
                "RETURNS TO": ", ".join(one.known.addresses()),
            }
            for one in found
        ],
        "No client is known by name.",
    )


@clients.command()
@_named
@click.pass_obj
def enable(config: Path, *, known: Known) -> None:
    """Switch a known client on: it may register and log in, in the window as any other.

    It counts at once. NAME is one of `clients known`; a client that lives at your own host is NAME@HOST, as
    librechat@chat.example.org.
    """
    with opened_store(config) as store:
        switch(store, known, enabled=True, now=time.time())
    click.echo(f"{known.title} is on. To connect it: `sudo opencode-gateway clients allow`, and connect it then.")


@clients.command()
@_named
@click.pass_obj
def disable(config: Path, *, known: Known) -> None:
    """Switch a known client off: it can neither register nor log in anew, nor finish a login that it has begun.

    It counts at once, against the default, and for those that a window was opened for, too. What gateway.json
    switches on stays on until it is removed there. Sessions that it has go on: `clients revoke` and `sessions revoke`
    end them.
    """
    with opened_store(config) as store:
        switch(store, known, enabled=False, now=time.time())
        allowed = RedirectRules(settings_of(config).clients, store).now()
    if str(known) in settings_of(config).clients.known:
        raise CommandRefused(
            f"{known.title} stays on, as clients.known of {config} names it: remove {known} there, and restart the"
            " service"
        )
    click.echo(
        f"{known.title} is off. Sessions that it has go on: see `sudo opencode-gateway clients list`, and end them"
        " with `sudo opencode-gateway clients revoke ID`."
    )
    for address in known.addresses():
        if allowed.allows(address.replace("PORT", "1").replace(ID, "x")):
            click.echo(f"{address} is still allowed, by another client or setting that has it, too.")


def describe_switches(all_: list[Switch]) -> str:
    """Say in one line which known clients are on, and what says so."""
    return ", ".join(f"{one.known} ({', '.join(one.sources)})" for one in all_ if one.sources) or "none"


def _switches(config: Path) -> list[Switch]:
    with opened_store(config) as store, store.transaction(write=False) as db:
        return switches(settings_of(config).clients, commanded(db))


@clients.command()
@click.argument("client_id", metavar="ID")
@click.pass_obj
def revoke(config: Path, *, client_id: str) -> None:
    """Forget a client and end its sessions at once."""
    with opened_store(config) as store:
        sessions = enrolment.revoke_client(store, client_id)
    click.echo(f"The client is forgotten, and {sessions} session{'' if sessions == 1 else 's'} of it ended.")
