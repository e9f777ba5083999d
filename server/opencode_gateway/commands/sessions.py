"""`opencode-gateway sessions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opencode_common.command_line import Group
from opencode_gateway.audit import PAGES
from opencode_gateway.commands.forgetting import forget_browsers
from opencode_gateway.commands.opened import json_option, moment, opened_store, show, show_json
from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions

if TYPE_CHECKING:
    from pathlib import Path


@click.group(cls=Group)
def sessions() -> None:
    """List who is logged in through which client, and end sessions."""


@sessions.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List sessions: what one consent gave, and who is logged in on the relay's own pages."""
    with opened_store(config) as store:
        found = list_sessions(store)
    if as_json:
        show_json(found)
        return
    show(
        [
            {
                "ID": session.id,
                "LOGIN": session.login,
                "CLIENT": session.client_name,
                "CAPABILITIES": " ".join(session.capabilities) or "all of theirs",
                "SINCE": moment(session.created_at),
                "LAST REFRESHED": "-" if session.client_id == PAGES else moment(session.refreshed_at),
            }
            for session in found
        ],
        "Nobody is logged in.",
    )


@sessions.command()
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--login", help="All sessions of this person.")
@click.option("--all", "everybody", is_flag=True, help="All there are.")
@click.pass_obj
def revoke(config: Path, *, session_id: str | None, login: str | None, everybody: bool) -> None:
    """End sessions at once: one by its ID, or several.

    With all sessions of a person their browsers are told nothing any more: one of them may be a thief's.
    """
    if (session_id is not None) + (login is not None) + everybody != 1:
        raise click.UsageError("name a session's ID, or give --login NAME, or --all")
    with opened_store(config) as store:
        ended = revoke_sessions(store, session_id=session_id, login=login)
    if session_id is not None and not ended:
        raise CommandRefused(f"there is no session {session_id[:200]!r}: see `sudo opencode-gateway sessions list`")
    click.echo(f"{ended} session{'' if ended == 1 else 's'} ended.")
    if session_id is None and (browsers := forget_browsers(config, login)):
        what = "browser is" if browsers == 1 else "browsers are"
        click.echo(f"{browsers} {what} told nothing any more, until somebody switches it on there again.")
