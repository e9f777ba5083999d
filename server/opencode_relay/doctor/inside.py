"""The relay's own parts: the agent, the tunnels' ports, the record of the enrolled, the directory of the journal."""

from __future__ import annotations

import ipaddress
import socket
import stat
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular
from opencode_common.finding import Finding, fault, note, ok
from opencode_relay.clients import EnrolledMachines
from opencode_relay.doctor.asking import SECONDS, reason
from opencode_relay.errors import RelayConfigError
from opencode_relay.listeners import Listeners
from opencode_relay.settings import account

if TYPE_CHECKING:
    from opencode_relay.doctor.relay import ExaminedRelay

_OWN_MODE: Final = 0o700
"""Of a directory that is its owner's alone."""


def check_agent(relay: ExaminedRelay) -> list[Finding]:
    """Ask the agent whether it is there: to root it says so by hanging up."""
    remedy = (
        "`systemctl restart opencode-relay-agent.socket opencode-relay-agent`, `journalctl -u opencode-relay-agent`"
    )
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(relay.settings.socket))
            connection.recv(1)
    except TimeoutError:
        return [fault("agent", "its socket takes connections, and it does not answer", f"Restart it: {remedy}")]
    except OSError as error:
        return [fault("agent", f"its socket {relay.settings.socket} is not reached ({reason(error)})", remedy)]
    return [ok("agent", "it answers")]


def check_tunnels(relay: ExaminedRelay) -> list[Finding]:
    """See that the range belongs to the tunnels, and that they are on loopback."""
    uid = account(relay.settings.tunnel_user).pw_uid
    tunnels, exposed, foreign = set(), [], []
    for port, address, owner in Listeners(relay.settings.ports).all():
        if owner != uid:
            foreign.append(f"{address} port {port} of user {owner}")
        elif not ipaddress.ip_address(address).is_loopback:
            exposed.append(f"{address} port {port}")
        else:
            tunnels.add(port)
    where = relay.settings.port_range
    if exposed:
        return [
            fault(
                "tunnels",
                f"{exposed[0]} listens beyond loopback",
                "`systemctl restart ssh`, and run the playbook relay.yml: sshd's GatewayPorts must be no",
            )
        ]
    if foreign:
        return [
            fault(
                "tunnels",
                f"something else listens in {where}: {', '.join(foreign[:3])}",
                "Stop it (`ss -ltnp` names it), or give it another port",
            )
        ]
    return [ok("tunnels", f"{len(tunnels)} of {where} are open, on loopback, and nothing else listens there")]


def check_record(relay: ExaminedRelay) -> list[Finding]:
    """See that the record of who is enrolled can be read."""
    record = relay.etc / "clients.json"
    try:
        clients = EnrolledMachines.parse(read_regular(record), record)
    except FileNotFoundError:
        return [
            fault("clients", "nobody is enrolled", "Name clients in relay_clients, and run the playbook relay.yml")
        ]
    except OSError as error:
        return [fault("clients", f"{record} cannot be read ({error.strerror})", "Run this as root")]
    except RelayConfigError as error:
        return [
            fault(
                "clients", str(error).partition(": ")[0], "opencode-relay restore FILE --replace puts a backup back"
            )
        ]
    return [ok("clients", f"{len(clients.clients)} are enrolled, {len(clients.revoked)} keys are revoked")]


def check_state(relay: ExaminedRelay) -> list[Finding]:
    """See that the directory of the journal is the gateway's alone: the server works without it where it is not."""
    directory = relay.settings.state_dir
    if directory is None:
        return [note("journal", "relay.json names no directory for it yet", "Run the playbook relay.yml")]
    harm = "the server keeps nothing over its end"
    remedy = "Run the playbook relay.yml"
    try:
        found = directory.lstat()
    except OSError as error:
        return [fault("journal", f"{directory}: {error.strerror}, so that {harm}", remedy)]
    user = relay.settings.gateway_user
    if not stat.S_ISDIR(found.st_mode):
        return [fault("journal", f"{directory} is no directory, so that {harm}", f"Move it away. {remedy}")]
    if found.st_uid != account(user).pw_uid:
        return [fault("journal", f"{directory} does not belong to {user}, so that {harm}", remedy)]
    if stat.S_IMODE(found.st_mode) != _OWN_MODE:
        return [
            fault(
                "journal",
                f"{directory} has mode {stat.S_IMODE(found.st_mode):04o}, and what was said lies there",
                f"`chmod 700 {directory}`",
            )
        ]
    return [ok("journal", f"{directory} is {user}'s alone, and keeps {relay.settings.journal_days} days")]
