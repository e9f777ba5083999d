"""The command `opencode-mcp`: a server on standard input and output, pages for a browser, tools without a client."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from opencode_common.command_line import BadSettings, json_option, program, show

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from mcp.server.mcpserver import MCPServer

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.settings import ServerSettings
    from opencode_fleet.transports.base import Transport

PROGRAM: Final = "opencode-mcp"
_HELP = """Drive the OpenCode instances registered in RELAY_REGISTRY_DIR.

Without COMMAND, this is an MCP server on standard input and output, which an MCP client starts.
With --page it serves pages instead, on which a person sees what needs them and decides it, on this machine alone.

\b
Settings, from the environment (the README describes each):
  RELAY_REGISTRY_DIR, DISCOVERY_INTERVAL_MS, HEALTH_CHECK_TIMEOUT_MS, TRANSPORT, SEND_TIMEOUT_MS,
  RELAY_CREDENTIALS_FILE, RELAY_PORT_RANGE, RELAY_STATE_DIR, RELAY_JOURNAL_DAYS, RELAY_CALLERS,
  RELAY_UPLOADS_DIR, RELAY_UPLOADS_URL, LOG_LEVEL
"""
_CALL_HELP = """Call a tool of the server, without a chat client.

\b
  opencode-mcp call instances
  opencode-mcp call send instance=laptop message="run the tests"
  opencode-mcp call wait instances=laptop instances=desktop

`opencode-mcp tools` tells which tools there are and what each takes. What takes several values is given several times
or as JSON. Progress goes to standard error. Before `reply` approves anything, it is shown here, and you are asked.
"""
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class _Prepared(NamedTuple):
    """What a server is made of."""

    settings: ServerSettings
    release: str

    def server(self) -> MCPServer[Fleet]:
        """Return one that does not run yet."""
        from opencode_mcp.server import build_server

        return build_server(self.settings, self.transport(), self.release)

    def transport(self) -> Transport:
        """Return the way to the instances."""
        from opencode_fleet.transports import TRANSPORTS

        return TRANSPORTS[self.settings.transport](self.settings)


@program(PROGRAM, help=_HELP, invoke_without_command=True, extra="server")
@click.option(
    "--page", is_flag=True, help="Serve pages for a browser on this machine until Ctrl-C, and print the link to them."
)
@click.pass_context
def cli(context: click.Context, *, page: bool) -> None:
    """Serve, or leave it to the command that was named."""
    if context.invoked_subcommand is None:
        (_serve_pages if page else _serve)(_prepared(context.obj))
    elif page:
        raise click.UsageError("--page is for serving, not for commands")


@cli.command()
@json_option("It is a list of tools, as MCP describes them.")
@click.pass_obj
def tools(relay_json: Path | None, *, as_json: bool) -> None:
    """List the tools of the server, and what each takes."""
    import anyio

    from opencode_mcp.calls import described

    offered = anyio.run(_prepared(relay_json).server().list_tools)
    document = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in offered]
    show("\n\n".join(map(described, offered)), document, as_json=as_json)


@cli.command(help=_CALL_HELP)
@click.argument("tool")
@click.argument("arguments", metavar="[KEY=VALUE]...", nargs=-1)
@json_option("It is the tool's structured result.")
@click.pass_obj
def call(relay_json: Path | None, *, tool: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """Call a tool of the server, without a chat client."""
    from functools import partial

    import anyio

    from opencode_mcp.calls import BadArguments, ToolFailed, called

    prepared = _prepared(relay_json)
    # Who has the terminal is the account of this process, whoever tells the callers of a server.
    own = prepared._replace(settings=prepared.settings.called_by_its_account())
    try:
        answer = anyio.run(partial(called, own.server(), tool, arguments))
    except BadArguments as error:
        raise click.UsageError(str(error)) from None
    except ToolFailed as error:
        raise click.ClickException(str(error)) from None
    show(answer.text, answer.structured, as_json=as_json)


def main(relay_json: Path | None = None) -> NoReturn:
    """Run the command line, and end the process with its exit code.

    `relay_json`: where a provisioned relay has its settings, if not in their one place; for tests.
    """
    cli.main(prog_name=PROGRAM, obj=relay_json)


def _prepared(relay_json: Path | None) -> _Prepared:
    """Read the settings, and have the log on standard error.

    Raises:
        BadSettings: one of them is wrong.
        ModuleNotFoundError: the extra is not installed.
    """
    import anyio  # noqa: F401 - only whether it is there
    import mcp  # noqa: F401 - as above

    from opencode_fleet.errors import SettingsError
    from opencode_fleet.provisioned import RELAY_JSON
    from opencode_fleet.settings import load_settings
    from opencode_fleet.transports import TRANSPORTS

    level = os.environ.get("LOG_LEVEL", "").strip() or "WARNING"
    if level.upper() not in LOG_LEVELS:
        raise BadSettings(f"LOG_LEVEL is {level[:80]!r}; it must be one of: {', '.join(LOG_LEVELS)}")
    # Standard output is the protocol's, or the result's.
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = load_settings(os.environ, TRANSPORTS, relay_json or RELAY_JSON)
    except SettingsError as error:
        raise BadSettings(str(error)) from None
    return _Prepared(settings, version("opencode-relay"))


def _serve(prepared: _Prepared) -> None:
    """Be a server until the client closes standard input."""
    import anyio

    from opencode_mcp.standard_input import mend_standard_input

    server = prepared.server()
    # The thread that reads standard input would hold up a tidy end, and the first process of a container is deaf to
    # signals that it does not handle. There is nothing to tidy: what runs, runs in OpenCode.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: os._exit(128 + got))
    mend_standard_input()
    anyio.run(server.run_stdio_async)


def _serve_pages(prepared: _Prepared) -> None:
    """Serve the pages until Ctrl-C."""
    import anyio

    from opencode_mcp.page.serving import serve

    with suppress(KeyboardInterrupt):
        anyio.run(serve, prepared.settings, prepared.transport())
