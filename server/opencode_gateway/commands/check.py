"""`opencode-gateway check`."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import click

from opencode_gateway.calls.names import Names
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.commands.clients import describe_switches
from opencode_gateway.configuration import load_configuration
from opencode_gateway.errors import ConfigError, Refused
from opencode_gateway.examination import described_approvals, without_pages
from opencode_gateway.oauth.redirects import switches

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.calls.names import Compared
    from opencode_gateway.calls.servers import Servers
    from opencode_gateway.configuration import Configuration


@click.command()
@click.option("--start", is_flag=True, help="Also start the servers, and ask each for its tools.")
@click.pass_obj
def check(config: Path, start: bool) -> None:
    """Read gateway.json and servers.json, and say what would be served.

    Nothing is started without --start. No value of a variable is shown.
    """
    configuration = load_configuration(config)
    servers = load_servers(configuration.servers_file)
    click.echo(f"{configuration.resource} on {configuration.listen}, sign-in: {configuration.sign_in.mode}")
    clients = configuration.clients
    click.echo(
        f"clients: {describe_switches(switches(clients, {}))};"
        " `sudo opencode-gateway clients known` has what commands switched, too"
    )
    for uri in (*(clients.redirect_uris or ()), *(["any at loopback"] if clients.loopback_redirects else [])):
        click.echo(f"  a redirect address: {uri}")
    for capability, tools in configuration.capabilities.items():
        click.echo(f"{capability}: {', '.join(tools) or 'no tool'}")
    click.echo(f"approvals: {described_approvals(configuration)}")
    if problem := without_pages(configuration, servers):
        raise ConfigError(problem)
    for name, server in servers.items():
        environment = server.environment(name, os.environ, configuration.tool_timeout_seconds)
        if shutil.which(server.command, path=environment.get("PATH")) is None:
            raise ConfigError(
                f"{configuration.servers_file or 'the default'}: {name}.command: {server.command} is not found"
            )
        served = "all its tools" if server.tools == "*" else f"the tools {', '.join(server.tools) or '(none)'}"
        click.echo(f"server {name}: {' '.join((server.command, *server.args))}; {served}")
        click.echo(f"  its variables: {', '.join(sorted(environment))}")
    found = asyncio.run(_asked(configuration, servers)) if start else _known(configuration, servers)
    for told in found.warnings():
        click.echo(f"opencode-gateway: warning: {told}", err=True)
    if start and found.silent:
        raise Refused(f"no tools came from {', '.join(found.silent)}: see why above, and run its command by hand")


def _known(configuration: Configuration, servers: Servers) -> Compared:
    names = Names(servers)
    return names.compared(configuration.capabilities, names.told_by_nature())


async def _asked(configuration: Configuration, servers: Servers) -> Compared:
    from opencode_gateway.calls.children import compared_with_servers  # noqa: PLC0415 # fastmcp, which takes seconds

    return await compared_with_servers(configuration, servers, os.environ)
