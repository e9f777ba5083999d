"""`opencode-gateway doctor`."""

from __future__ import annotations

import encodings.idna  # noqa: F401 # names of hosts need it: too late once this program is somebody else
import os
import time
from typing import TYPE_CHECKING

import click

from opencode_common.command_line import json_option
from opencode_common.finding import Finding, fault, is_sound, note, ok, to_json
from opencode_gateway import examination
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.commands.health import NothingAnswers, asked
from opencode_gateway.commands.opened import settings_of
from opencode_gateway.configuration import PasswordSignIn, load_configuration
from opencode_gateway.errors import GatewayError
from opencode_gateway.logs import escaped
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from opencode_gateway.telling import state_directory
from opencode_notify.rules import FILE_NAME as PEOPLE

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.configuration import Configuration


@click.command()
@json_option()
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Look at the whole gateway, and say what to mend; exit with 1 if something is to be mended.

    Settings, files, database, people, clients, the running service and its servers, and who was refused today.
    """
    findings = _examined(context.obj)
    click.echo(to_json(findings) if as_json else "\n".join(escaped(finding.line) for finding in findings))
    context.exit(0 if is_sound(findings) else 1)


def _examined(config: Path) -> list[Finding]:
    """Return what all checks say. Where one cannot be looked past, it is the last."""
    try:
        configuration = load_configuration(config)
        servers = load_servers(configuration.servers_file)
    except GatewayError as error:
        return [fault("settings", str(error), "`sudo opencode-gateway check` says when it is right")]
    findings = [
        ok("settings", f"{configuration.resource} on {configuration.listen}"),
        *examination.servers_found(servers, configuration, os.environ),
        *examination.tools_are_listed(servers, configuration),
        *examination.approvals_have_a_page(servers, configuration),
    ]
    try:
        # From here on as the service's account, whose files may lead anywhere.
        settings_of(config)
    except GatewayError as error:
        return [*findings, fault("files", str(error), "Start the service once, or run this as its account")]
    findings += examination.files_are_private(configuration.data_dir)
    findings += examination.disk_has_room(configuration.data_dir)
    findings += examination.people_can_log_in(_users(configuration), configuration.sign_in)
    findings += examination.people_are_told(configuration.data_dir / PEOPLE, state_directory(servers, os.environ))
    findings += _service(configuration.listen)
    return findings + _kept(configuration)


def _users(configuration: Configuration) -> Users | None:
    if not isinstance(configuration.sign_in, PasswordSignIn):
        return None
    return Users(configuration.sign_in.users_file or configuration.data_dir / "users.json")


def _service(listen: str) -> list[Finding]:
    try:
        asked(listen)
    except NothingAnswers as error:
        remedy = "`sudo systemctl restart opencode-gateway`; `sudo journalctl -u opencode-gateway` says why it ended"
        return [fault("service", str(error), remedy)]
    except GatewayError as error:
        # The gateway tries to start them anew by itself.
        return [fault("service", str(error), "`sudo journalctl -u opencode-gateway` says why")]
    return [ok("service", "it answers, and so does every server behind it")]


def _kept(configuration: Configuration) -> list[Finding]:
    """Look into the database."""
    path = configuration.data_dir / FILE_NAME
    if not path.exists():
        return [note("database", f"{path} is not there yet", "The service makes it when it starts")]
    try:
        store = Store(path)
    except GatewayError as error:
        return [fault("database", str(error), examination.AGAIN)]
    try:
        now = time.time()
        return [
            *examination.database_is_sound(store),
            *examination.clients_may_come(store, configuration, now),
            *examination.refused_lately(store, now),
        ]
    finally:
        store.close()
