"""The command line of `opencode-gateway`; each command's work is in `commands/`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

import click

from opencode_common.command_line import Program, program
from opencode_gateway.configuration import DEFAULT_PATH
from opencode_gateway.errors import ConfigError, GatewayError

PROGRAM: Final = "opencode-gateway"
COMMANDS: Final = {
    "serve": "Serve until a signal ends it.",
    "check": "Read gateway.json and servers.json, and say what would be served.",
    "health": "Ask the running gateway, and through it every server behind it; exit with 1 if one does not answer.",
    "doctor": "Look at the whole gateway, and say what to mend; exit with 1 if something is to be mended.",
    "users": "Add, change, list and remove the people who may log in with a password.",
    "clients": "Admit chat clients, list them, and end what they may do.",
    "refusals": "List the clients that were refused last, why, and what helps.",
    "sessions": "List who is logged in through which client, and end sessions.",
    "tokens": "Make, list and revoke bearer tokens for machines, which cannot log in.",
    "notify": "Say how people are told what needs them: which outlets, and whether these work.",
    "backup": "Copy the database to a new FILE while the service runs.",
}
"""Commands, each in the module of its name in `commands/`, with the first sentence of its help."""


class _Commands(Program):
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

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return it without the command: all of them together take seconds to load."""
        del ctx
        return COMMANDS[name]


@program(PROGRAM, cls=_Commands, errors=(GatewayError,), settings_errors=(ConfigError,), extra="gateway")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="GATEWAY_CONFIG",
    default=DEFAULT_PATH,
    show_default=True,
    help="gateway.json; GATEWAY_CONFIG names it, too.",
)
@click.pass_context
def cli(context: click.Context, *, config: Path) -> None:
    """Serve the MCP servers of this relay to chat clients, and administer who may use them."""
    context.obj = config


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    cli.main(prog_name=PROGRAM)
