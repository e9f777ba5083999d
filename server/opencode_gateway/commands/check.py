"""`opencode-gateway check`."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING, Any

import click

from opencode_common.command_line import json_option, show
from opencode_gateway.calls.names import Names
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.commands.clients import describe_switches
from opencode_gateway.configuration import load_configuration
from opencode_gateway.errors import CommandRefused, ConfigError
from opencode_gateway.examination import described_approvals, without_pages
from opencode_gateway.oauth.redirects import switches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opencode_gateway.calls.names import Compared
    from opencode_gateway.calls.servers import Server, Servers
    from opencode_gateway.configuration import Configuration


@click.command()
@click.option("--start", is_flag=True, help="Also start the servers, and ask each for its tools.")
@json_option()
@click.pass_obj
def check(config: Path, *, start: bool, as_json: bool) -> None:
    """Read gateway.json and servers.json, and say what would be served.

    Nothing is started without --start. No value of a variable is shown.
    """
    configuration = load_configuration(config)
    servers = load_servers(configuration.servers_file)
    if problem := without_pages(configuration, servers):
        raise ConfigError(problem)
    served = [_served(name, server, configuration) for name, server in servers.items()]
    document = {
        "resource": configuration.resource,
        "listen": configuration.listen,
        "sign_in": configuration.sign_in.mode,
        "clients": [str(one.known) for one in switches(configuration.clients, {}) if one.sources],
        "redirect_addresses": list(configuration.clients.redirect_uris or ()),
        "loopback_redirects": configuration.clients.loopback_redirects,
        "capabilities": {name: list(tools) for name, tools in configuration.capabilities.items()},
        "approvals": configuration.approvals,
        "passkey_for": list(configuration.passkey_for),
        "servers": served,
    }
    show("\n".join(_lines(configuration, served)), document, as_json=as_json)
    found = asyncio.run(_asked(configuration, servers)) if start else _known(configuration, servers)
    for told in found.warnings():
        click.echo(f"opencode-gateway: warning: {told}", err=True)
    if start and found.silent:
        raise CommandRefused(
            f"no tools came from {', '.join(found.silent)}: see why above, and run its command by hand"
        )


def _served(name: str, server: Server, configuration: Configuration) -> dict[str, Any]:
    """Return what is to be told of a server. Raises `ConfigError` if its command is not there."""
    environment = server.environment(name, os.environ, configuration.tool_timeout_seconds)
    if shutil.which(server.command, path=environment.get("PATH")) is None:
        raise ConfigError(
            f"{configuration.servers_file or 'the default'}: {name}.command: {server.command} is not found"
        )
    return {
        "name": name,
        "command": [server.command, *server.args],
        "tools": None if server.tools == "*" else list(server.tools),
        "variables": sorted(environment),
    }


def _lines(configuration: Configuration, served: list[dict[str, Any]]) -> Iterator[str]:
    clients = configuration.clients
    yield f"{configuration.resource} on {configuration.listen}, sign-in: {configuration.sign_in.mode}"
    yield (
        f"clients: {describe_switches(switches(clients, {}))};"
        " `sudo opencode-gateway clients known` has what commands switched, too"
    )
    for uri in (*(clients.redirect_uris or ()), *(["any at loopback"] if clients.loopback_redirects else [])):
        yield f"  a redirect address: {uri}"
    for capability, tools in configuration.capabilities.items():
        yield f"{capability}: {', '.join(tools) or 'no tool'}"
    yield f"approvals: {described_approvals(configuration)}"
    for server in served:
        tools = server["tools"]
        which = "all its tools" if tools is None else f"the tools {', '.join(tools) or '(none)'}"
        yield f"server {server['name']}: {' '.join(server['command'])}; {which}"
        yield f"  its variables: {', '.join(server['variables'])}"


def _known(configuration: Configuration, servers: Servers) -> Compared:
    names = Names(servers)
    return names.compared(configuration.capabilities, names.told_by_nature())


async def _asked(configuration: Configuration, servers: Servers) -> Compared:
    from opencode_gateway.calls.children import compared_with_servers  # noqa: PLC0415 # fastmcp, which takes seconds

    return await compared_with_servers(configuration, servers, os.environ)
