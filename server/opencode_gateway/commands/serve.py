"""`opencode-gateway serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opencode_gateway.configuration import load_configuration
from opencode_gateway.service import run

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.pass_obj
def serve(config: Path) -> None:
    """Serve until a signal ends it.

    Standard output carries the audit log, unless a file does; standard error carries the service's own.
    """
    run(load_configuration(config))
