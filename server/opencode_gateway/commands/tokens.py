"""`opencode-gateway tokens`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from opencode_common.command_line import Group
from opencode_gateway import machine_tokens
from opencode_gateway.commands.opened import capability_option, json_option, moment, opened_store, show, show_json

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.capabilities import Capability

_DAY: int = 24 * 3600


@click.group(cls=Group)
def tokens() -> None:
    """Make, list and revoke bearer tokens for machines, which cannot log in."""


@tokens.command()
@click.argument("name")
@capability_option
@click.option("--days", type=click.IntRange(1, 3650), help="After which it ends; without it, when it is revoked.")
@click.pass_obj
def add(config: Path, *, name: str, capabilities: tuple[Capability, ...], days: int | None) -> None:
    """Make a token and print it on standard output. It is shown this once, and kept as a hash."""
    now = time.time()
    with opened_store(config) as store:
        token = machine_tokens.add(
            store, name, capabilities, now=now, expires_at=None if days is None else now + days * _DAY
        )
    click.echo("This is the token. It is not shown again; whoever has it can use it.", err=True)
    click.echo(token)


@tokens.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List tokens, without what they are."""
    with opened_store(config) as store:
        found = machine_tokens.list_tokens(store)
    if as_json:
        show_json(found)
        return
    show(
        [
            {
                "NAME": token.name,
                "CAPABILITIES": " ".join(token.capabilities),
                "SINCE": moment(token.created_at),
                "ENDS": moment(token.expires_at),
            }
            for token in found
        ],
        "There is no token.",
    )


@tokens.command()
@click.argument("name")
@click.pass_obj
def revoke(config: Path, *, name: str) -> None:
    """End a token at once."""
    with opened_store(config) as store:
        machine_tokens.revoke(store, name)
    click.echo(f"The token {name} is no good any more.")
