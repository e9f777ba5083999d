"""`opencode-gateway health`, what the image's HEALTHCHECK runs."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final

import click

from opencode_gateway.configuration import load_configuration
from opencode_gateway.errors import GatewayError

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS: Final = 8.0
"""The service gives its children 5."""
_PATH: Final = "/healthz"


class NothingAnswers(GatewayError):
    """The gateway does not run, or does not come to answer."""


@click.command()
@click.pass_obj
def health(config: Path) -> None:
    """Ask the running gateway, and through it every server behind it; exit with 1 if one does not answer."""
    click.echo(asked(load_configuration(config).listen))


def asked(listen: str) -> str:
    """Return what the gateway there says when all is well.

    Raises:
        NothingAnswers: it does not.
        GatewayError: it names servers that do not.
    """
    connection = HTTPConnection(listen, timeout=_SECONDS)
    try:
        connection.request("GET", _PATH)
        answer = connection.getresponse()
        told = answer.read(1000).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise NothingAnswers(f"nothing answers on {listen}: {why}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise GatewayError(told or f"{listen} answers {answer.status}")
    return told
