"""What laptops log in to: sshd's ports, what holds for the tunnel's account, and what sshd proves itself with."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import psutil

from opencode_common.finding import Finding, fault, ok
from opencode_relay.doctor.asking import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_relay.doctor.relay import ExaminedRelay

_FROM: Final = "host=laptop.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
"""sshd refuses to say what holds without any."""
_WALLS: Final[Mapping[str, str]] = {
    "allowtcpforwarding": "remote",
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "gatewayports": "no",
    "permitlisten": "127.0.0.1:*",
    "permittty": "no",
    "permittunnel": "no",
    "forcecommand": "none",
    "passwordauthentication": "no",
}
"""What keeps a stolen key harmless."""
_PLAYBOOK: Final = "Run the playbook relay.yml"


def settings_of(relay: ExaminedRelay) -> dict[str, str] | None:
    """Return what sshd's configuration means for the tunnel's account, by keyword; None where it cannot be read."""
    told = ask(*relay.sshd, "-T", "-C", f"user={relay.settings.tunnel_user},{_FROM}")
    if told is None or told.returncode != 0:
        return None
    found: dict[str, str] = {}
    for line in told.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found[keyword] = f"{found[keyword]} {value}" if keyword == "port" and keyword in found else value
    return found


def ports_of(settings: Mapping[str, str]) -> list[int]:
    """Return the ports that sshd is to listen on."""
    return [int(port) for port in settings.get("port", "22").split()]


def check(relay: ExaminedRelay) -> list[Finding]:
    """Look at all three."""
    settings = settings_of(relay)
    if settings is None:
        return [fault("ssh", "sshd refuses its configuration", "`sudo sshd -t` says why; mend that first")]
    return [_listens(settings), _walls(relay, settings), _host_key(relay, settings)]


def _listens(settings: Mapping[str, str]) -> Finding:
    open_ports = {
        entry.laddr.port
        for entry in psutil.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr
    }
    shut = [port for port in ports_of(settings) if port not in open_ports]
    if shut:
        return fault("ssh", f"nothing listens on port {shut[0]}", "`systemctl restart ssh`, `journalctl -u ssh`")
    return ok("ssh", f"it listens on port {', '.join(map(str, ports_of(settings)))}")


def _walls(relay: ExaminedRelay, settings: Mapping[str, str]) -> Finding:
    wanted = {**_WALLS, "authorizedkeysfile": str(relay.etc / "authorized_keys")}
    wrong = [
        f"{keyword} is {settings.get(keyword, 'not set')}"
        for keyword in wanted
        if settings.get(keyword) != wanted[keyword]
    ]
    if wrong:
        return fault(
            "sshd's settings",
            f"for {relay.settings.tunnel_user} {', '.join(wrong)}",
            f"{_PLAYBOOK}: it says which file is in the way",
        )
    return ok("sshd's settings", f"{relay.settings.tunnel_user} may open tunnels on loopback, and nothing else")


def _host_key(relay: ExaminedRelay, settings: Mapping[str, str]) -> Finding:
    """Compare what sshd proves itself with to what join lines say."""
    public = relay.host_key.with_name(f"{relay.host_key.name}.pub")
    try:
        expected = public.read_text(errors="replace").split()[:2]
        mode = relay.host_key.stat().st_mode & 0o077
    except OSError as error:
        return fault(
            "host key", f"{error.filename}: {error.strerror}", "`ssh-keygen -A`, then `systemctl restart ssh`"
        )
    if mode:
        return fault(
            "host key", f"{relay.host_key} is open to others", f"`chmod 600 {relay.host_key}`, and make a new one"
        )
    made = ask("ssh-keygen", "-y", "-P", "", "-f", str(relay.host_key))
    if made is None or made.returncode != 0 or made.stdout.split()[:2] != expected:
        return fault(
            "host key",
            f"{relay.host_key} and {public.name} are no pair",
            "Put both back: opencode-relay restore FILE",
        )
    shown = ask("ssh-keyscan", "-T", "3", "-t", "ed25519", "-p", str(ports_of(settings)[0]), _address(settings))
    offered = [line.split()[1:3] for line in shown.stdout.splitlines() if not line.startswith("#")] if shown else []
    if expected not in offered:
        return fault(
            "host key",
            f"sshd does not prove itself with {relay.host_key}",
            "`systemctl restart ssh`, then look again",
        )
    return ok("host key", "sshd proves itself with what the join lines say")


def _address(settings: Mapping[str, str]) -> str:
    """Return where sshd is reached from here."""
    address = settings.get("listenaddress", "").rpartition(":")[0].strip("[]")
    return address if address not in {"", "0.0.0.0", "::"} else ("::1" if not _has_ipv4() else "127.0.0.1")  # noqa: S104 # compared


def _has_ipv4() -> bool:
    return any(entry.family == socket.AF_INET for entries in psutil.net_if_addrs().values() for entry in entries)
