"""`opencode-gateway serve`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from opencode_gateway.configuration import load_configuration
from opencode_gateway.errors import CommandRefused
from opencode_gateway.service import run

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.pass_obj
def serve(config: Path) -> None:
    """Serve until a signal ends it.

    Standard output carries the audit log, unless a file does; standard error carries the service's own.
    """
    configuration = load_configuration(config)
    # A missing directory is the service's own error. Root would follow links that its owner puts there.
    if os.geteuid() == 0 and configuration.data_dir.exists() and (owner := configuration.data_dir.stat().st_uid):
        raise CommandRefused(
            f"{configuration.data_dir} belongs to uid {owner}: run the service as that account, not as root"
        )
    run(configuration)
