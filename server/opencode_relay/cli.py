"""The command `opencode-relay`: the agent of a provisioned relay, and its administration."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_relay.agent import Agent
from opencode_relay.clients import parse_wanted
from opencode_relay.enrolment import Enrolment, locked, require_root
from opencode_relay.errors import RelayError
from opencode_relay.join import HOST_KEY, join_line, read_host_key
from opencode_relay.listing import Listing
from opencode_relay.revoking import revoke
from opencode_relay.settings import ETC, account, load_settings
from opencode_relay.systemd import JournalFormatter, listening_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_relay.backup.host import Host
    from opencode_relay.enrolment import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for what a person must mend, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.verb(options) or 0
    except RelayError as error:
        print(f"opencode-relay: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"opencode-relay: {error.filename or 'the system'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("opencode-relay", description=__doc__)
    parser.add_argument("--version", action="version", version=version("opencode-relay"))
    parser.add_argument(
        "--etc", type=Path, default=ETC, metavar="DIR", help="where relay.json lies (default: %(default)s)"
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser("agent", help="serve the clients; started by systemd")
    verb.set_defaults(verb=_agent)
    verb = verbs.add_parser("apply", help="enrol exactly the clients of the JSON on standard input")
    verb.add_argument("--check", action="store_true", help="change nothing, say what would change")
    verb.set_defaults(verb=_apply)
    verb = verbs.add_parser("revoke", help="remove a client, cut its sessions, and refuse its key from now on")
    verb.add_argument("name")
    verb.set_defaults(verb=_revoke)
    verb = verbs.add_parser("unrevoke", help="let a revoked key be enrolled again")
    verb.add_argument(
        "key", help="its fingerprint, SHA256:…, or the name of the client, if only one key of it is revoked"
    )
    verb.set_defaults(verb=_unrevoke)
    verb = verbs.add_parser("clients", help="list who is enrolled and what is registered")
    verb.add_argument("--json", action="store_true", help="for programs")
    verb.set_defaults(verb=_clients)
    verb = verbs.add_parser(
        "backup", help="write what is not derived to a new FILE: clients, host keys, the gateway's data"
    )
    verb.add_argument("file", type=Path, metavar="FILE", help="- for standard output")
    verb.add_argument("--check", action="store_true", help="read FILE, and say what is in it")
    _add_host_keys(verb)
    verb.set_defaults(verb=_backup)
    verb = verbs.add_parser("restore", help="put a backup back, then run relay.yml")
    verb.add_argument("file", type=Path, metavar="FILE")
    verb.add_argument("--check", action="store_true", help="change nothing, say what is in FILE")
    verb.add_argument("--replace", action="store_true", help="also over what this relay has by now")
    _add_host_keys(verb)
    verb.set_defaults(verb=_restore)
    verb = verbs.add_parser("doctor", help="look at the whole relay, and say what to mend")
    verb.add_argument("--json", action="store_true", help="for programs")
    verb.set_defaults(verb=_doctor)
    verb = verbs.add_parser("join", help="print the line that a client gives to `opencode-connected enroll --join`")
    verb.add_argument("name")
    verb.add_argument("--host", required=True, help="of this relay, as the client reaches it")
    verb.add_argument("--port", type=int, default=22, help="of its sshd (default: %(default)s)")
    verb.add_argument(
        "--host-key-file", type=Path, default=HOST_KEY, metavar="FILE", help="sshd's own (default: %(default)s)"
    )
    verb.set_defaults(verb=_join)
    return parser


def _add_host_keys(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--host-keys",
        type=Path,
        default=HOST_KEY.parent,
        metavar="DIR",
        help="where sshd's lie (default: %(default)s)",
    )


def _agent(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    settings = load_settings(options.etc)
    listener = listening_socket()
    uid = account(settings.tunnel_user).pw_uid

    async def serve() -> None:
        await Agent(settings, options.etc / "clients.json", listener, uid).run()

    asyncio.run(serve())


def _apply(options: argparse.Namespace) -> None:
    wanted = parse_wanted(sys.stdin.buffer.read())
    _change(options, lambda enrolment: enrolment.apply(wanted, check=options.check))


def _revoke(options: argparse.Namespace) -> None:
    print(json.dumps(revoke(options.etc, options.name).to_dict()))


def _unrevoke(options: argparse.Namespace) -> None:
    _change(options, lambda enrolment: enrolment.unrevoke(options.key))


def _change(options: argparse.Namespace, change: Callable[[Enrolment], Outcome]) -> None:
    settings = load_settings(options.etc)
    with locked(options.etc):
        outcome = change(Enrolment(options.etc, settings))
    print(json.dumps(outcome.to_dict()))


def _clients(options: argparse.Namespace) -> None:
    settings = load_settings(options.etc)
    listing = Listing.read(Enrolment(options.etc, settings).state, settings)
    print(json.dumps(listing.to_dict()) if options.json else listing.to_text())


def _backup(options: argparse.Namespace) -> None:
    from opencode_relay.backup.commands import back_up, describe

    if options.check:
        print(describe(options.file))
        return
    told = back_up(_host(options), options.file)
    print(told, file=sys.stderr if str(options.file) == "-" else sys.stdout)


def _restore(options: argparse.Namespace) -> None:
    from opencode_relay.backup.commands import describe, restore

    if options.check:
        print(describe(options.file))
    else:
        print(restore(_host(options), options.file, replace=options.replace).to_text())


def _doctor(options: argparse.Namespace) -> int:
    require_root()
    from opencode_common.finding import is_sound, to_json, to_text
    from opencode_relay.doctor.examination import examine
    from opencode_relay.doctor.relay import Gateway, Relay

    findings = examine(Relay(options.etc, load_settings(options.etc), Gateway.read()))
    print(to_json(findings) if options.json else to_text(findings))
    return 0 if is_sound(findings) else 1


def _host(options: argparse.Namespace) -> Host:
    from opencode_relay.backup.host import Host

    return Host(options.etc, load_settings(options.etc), options.host_keys)


def _join(options: argparse.Namespace) -> None:
    settings = load_settings(options.etc)
    client = Enrolment(options.etc, settings).state.get(options.name)
    host_key = read_host_key(options.host_key_file)
    print(join_line(client, host=options.host, port=options.port, user=settings.tunnel_user, host_key=host_key))


if __name__ == "__main__":
    sys.exit(main())
