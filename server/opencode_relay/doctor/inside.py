"""The relay's own parts: the agent, the ports of the tunnels, the record of who is enrolled."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from opencode_common.files import read_regular
from opencode_common.finding import Finding, fault, ok
from opencode_relay.clients import Clients
from opencode_relay.doctor.asking import SECONDS, reason
from opencode_relay.errors import ConfigError
from opencode_relay.listeners import Listeners
from opencode_relay.settings import account

if TYPE_CHECKING:
    from opencode_relay.doctor.relay import Relay


def check_agent(relay: Relay) -> list[Finding]:
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


def check_tunnels(relay: Relay) -> list[Finding]:
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


def check_record(relay: Relay) -> list[Finding]:
    """See that the record of who is enrolled can be read."""
    record = relay.etc / "clients.json"
    try:
        clients = Clients.parse(read_regular(record), record)
    except FileNotFoundError:
        return [
            fault("clients", "nobody is enrolled", "Name clients in relay_clients, and run the playbook relay.yml")
        ]
    except OSError as error:
        return [fault("clients", f"{record} cannot be read ({error.strerror})", "Run this as root")]
    except ConfigError as error:
        return [
            fault(
                "clients", str(error).partition(": ")[0], "opencode-relay restore FILE --replace puts a backup back"
            )
        ]
    return [ok("clients", f"{len(clients.clients)} are enrolled, {len(clients.revoked)} keys are revoked")]
