"""The command line of `opencode-gateway`: parsing, errors and exit codes; each command's work is in `commands/`.

Exit codes: 0 fine, 1 something is wrong, 2 usage or the gateway's own files.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from opencode_gateway.configuration import DEFAULT_PATH
from opencode_gateway.errors import ConfigError, GatewayError

PROGRAM: Final = "opencode-gateway"
COMMANDS: Final = (
    "serve",
    "check",
    "health",
    "doctor",
    "users",
    "clients",
    "refusals",
    "sessions",
    "tokens",
    "notify",
    "backup",
)
"""Each is the click command of that name in the module of that name in `commands/`."""


class _Commands(click.Group):
    """Loads a command's module when it is needed: only `serve` pays for the service's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"opencode_gateway.commands.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what a person can mend becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except GatewayError as error:
            click.echo(f"{PROGRAM}: {error}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="GATEWAY_CONFIG",
    default=DEFAULT_PATH,
    show_default=True,
    help="gateway.json; GATEWAY_CONFIG names it, too.",
)
@click.version_option(package_name="opencode-relay", prog_name=PROGRAM)
@click.pass_context
def cli(context: click.Context, *, config: Path) -> None:
    """Serve the MCP servers of this relay to chat clients, and administer who may use them."""
    context.obj = config


def main() -> None:
    """Run the command line; click ends the process with the exit code."""
    try:
        cli(prog_name=PROGRAM)
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package.startswith("opencode_"):
            raise
        sys.exit(_without_extra(package))


def _without_extra(package: str) -> int:
    click.echo(
        f"{PROGRAM}: {package} is not installed: it comes with the extra gateway. In a clone of opencode-relay: "
        "pipx install --force '.[gateway]'",
        err=True,
    )
    return 2
