"""The command `opencode-relay`: the agent of a provisioned relay, and its administration."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from opencode_common.command_line import json_option, program, show
from opencode_relay.agent import RelayAgent
from opencode_relay.clients import parse_wanted
from opencode_relay.enrolment import Enrolment, locked, require_root
from opencode_relay.errors import RelayConfigError, RelayError
from opencode_relay.join import HOST_KEY, join_line, read_host_key
from opencode_relay.listing import Listing
from opencode_relay.revoking import revoke as revoke_client
from opencode_relay.settings import ETC, account, load_settings
from opencode_relay.systemd import JournalFormatter, listening_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_relay.backup.host import Host
    from opencode_relay.enrolment import EnrolmentOutcome

PROGRAM: Final = "opencode-relay"
_file = click.argument("file", type=click.Path(path_type=Path))
_host_keys = click.option(
    "--host-keys",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=HOST_KEY.parent,
    show_default=True,
    help="Where sshd's lie.",
)


@program(PROGRAM, errors=(RelayError, OSError), settings_errors=(RelayConfigError,))
@click.option(
    "--etc",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=ETC,
    show_default=True,
    help="Where relay.json lies.",
)
@click.pass_context
def cli(context: click.Context, *, etc: Path) -> None:
    """Serve the enrolled machines of a provisioned relay, and administer who is enrolled."""
    context.obj = etc


@cli.command()
@click.pass_obj
def agent(etc: Path) -> None:
    """Serve the clients; systemd starts it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    settings = load_settings(etc)
    listener = listening_socket()
    uid = account(settings.tunnel_user).pw_uid

    async def serve() -> None:
        await RelayAgent(settings, etc / "clients.json", listener, uid).run()

    asyncio.run(serve())


@cli.command()
@click.option("--check", is_flag=True, help="Change nothing; tell what would change.")
@json_option()
@click.pass_obj
def apply(etc: Path, *, check: bool, as_json: bool) -> None:
    """Enrol exactly the clients of the JSON on standard input.

    Clients that it does not name are removed, and their sessions end. Their ports are kept for them.
    """
    wanted = parse_wanted(sys.stdin.buffer.read())
    _change(etc, lambda enrolment: enrolment.apply(wanted, check=check), as_json=as_json)


@cli.command()
@click.argument("name")
@json_option()
@click.pass_obj
def revoke(etc: Path, *, name: str, as_json: bool) -> None:
    """Remove a client, cut its sessions, and refuse its key from now on."""
    _show_outcome(revoke_client(etc, name), as_json=as_json)


@cli.command()
@click.argument("key")
@json_option()
@click.pass_obj
def unrevoke(etc: Path, *, key: str, as_json: bool) -> None:
    """Let a revoked key be enrolled again.

    KEY is its fingerprint, SHA256:…, or the name of the client, if only one key of it is revoked.
    """
    _change(etc, lambda enrolment: enrolment.unrevoke(key), as_json=as_json)


@cli.command()
@json_option()
@click.pass_obj
def clients(etc: Path, *, as_json: bool) -> None:
    """List who is enrolled, and what is registered."""
    settings = load_settings(etc)
    listing = Listing.read(Enrolment(etc, settings).state, settings)
    show(listing.to_text(), listing.to_dict(), as_json=as_json)


@cli.command()
@_file
@click.option("--check", is_flag=True, help="Change nothing; read FILE, and tell what is in it.")
@_host_keys
@click.pass_obj
def backup(etc: Path, *, file: Path, check: bool, host_keys: Path) -> None:
    """Write what is not derived to a new FILE: clients, host keys, the gateway's data.

    With - as FILE it goes to standard output.
    """
    from opencode_relay.backup.commands import back_up, describe

    if check:
        click.echo(describe(file))
        return
    told = back_up(_host(etc, host_keys), file)
    click.echo(told, err=str(file) == "-")


@cli.command()
@_file
@click.option("--check", is_flag=True, help="Change nothing; tell what is in FILE.")
@click.option("--replace", is_flag=True, help="Also over what this relay has by now.")
@_host_keys
@click.pass_obj
def restore(etc: Path, *, file: Path, check: bool, replace: bool, host_keys: Path) -> None:
    """Put a backup back. Afterwards, run the playbook relay.yml."""
    from opencode_relay.backup.commands import describe
    from opencode_relay.backup.commands import restore as put_back

    told = describe(file) if check else put_back(_host(etc, host_keys), file, replace=replace).to_text()
    click.echo(told)


@cli.command()
@json_option()
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Look at the whole relay, and say what to mend; exit with 1 if something is to be mended."""
    require_root()
    from opencode_common.finding import is_sound, to_json, to_text
    from opencode_relay.doctor.examination import examine
    from opencode_relay.doctor.relay import ExaminedGateway, ExaminedRelay

    findings = examine(ExaminedRelay(context.obj, load_settings(context.obj), ExaminedGateway.read()))
    click.echo(to_json(findings) if as_json else to_text(findings))
    context.exit(0 if is_sound(findings) else 1)


@cli.command()
@click.argument("name")
@click.option("--host", required=True, help="Of this relay, as the client reaches it.")
@click.option("--port", type=click.IntRange(1, 65535), default=22, show_default=True, help="Of its sshd.")
@click.option(
    "--host-key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=HOST_KEY,
    show_default=True,
    help="Sshd's own.",
)
@click.pass_obj
def join(etc: Path, *, name: str, host: str, port: int, host_key_file: Path) -> None:
    """Print the line that a client gives to `opencode-connected enroll --join`."""
    settings = load_settings(etc)
    client = Enrolment(etc, settings).state.get(name)
    host_key = read_host_key(host_key_file)
    click.echo(join_line(client, host=host, port=port, user=settings.tunnel_user, host_key=host_key))


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    cli.main(prog_name=PROGRAM)


def _change(etc: Path, change: Callable[[Enrolment], EnrolmentOutcome], *, as_json: bool) -> None:
    settings = load_settings(etc)
    with locked(etc):
        outcome = change(Enrolment(etc, settings))
    _show_outcome(outcome, as_json=as_json)


def _show_outcome(outcome: EnrolmentOutcome, *, as_json: bool) -> None:
    show(outcome.to_text(), outcome.to_dict(), as_json=as_json)


def _host(etc: Path, host_keys: Path) -> Host:
    from opencode_relay.backup.host import Host

    return Host(etc, load_settings(etc), host_keys)


if __name__ == "__main__":
    main()
