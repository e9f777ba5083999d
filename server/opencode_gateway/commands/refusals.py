"""`opencode-gateway refusals`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opencode_gateway.commands.opened import json_option, moment, opened_store, show_json
from opencode_gateway.logs import escaped
from opencode_gateway.refusal_log import list_refusals

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many to show; --json gives all of the last 30 days.",
)
@json_option
@click.pass_obj
def refusals(config: Path, *, last: int, as_json: bool) -> None:
    """List the clients that were refused last, why, and what helps.

    What is alike (one kind, client and network) is one entry, which says how often. A client tells its name itself.
    """
    with opened_store(config) as store:
        found = list_refusals(store)
    if as_json:
        show_json(found)
        return
    if not found:
        click.echo("No client was refused in the last 30 days.")
    for row in found[:last]:
        client, address = row.client or "a client without a name", row.address or "here"
        times = f"{row.count} time{'' if row.count == 1 else 's'}"
        # Sentences: no table that holds them fits a terminal.
        click.echo(escaped(f"{moment(row.last_at)}  {row.kind}  {client} from {address}, {times}"))
        click.echo(escaped(f"    {row.reason}"))
        if row.remedy:
            click.echo(escaped(f"    what helps: {row.remedy}"))
