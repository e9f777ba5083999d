"""`opencode-gateway backup`."""

from __future__ import annotations

from pathlib import Path

import click

from opencode_gateway.commands.opened import opened_store


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def backup(config: Path, *, file: Path) -> None:
    """Copy the database to a new FILE while the service runs.

    The copy holds clients, sessions and hashes of tokens. Users are in a file of their own. It is written as the
    account that the data directory belongs to, also when root asks for it.
    """
    with opened_store(config) as store:
        store.backup(file)
    click.echo(f"{file} holds the clients, sessions and tokens of now.")
