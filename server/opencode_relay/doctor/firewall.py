"""Whether firewalls that people have set up shut what laptops and phones need, and whether the relay's own is on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opencode_common.finding import Finding, fault, ok
from opencode_relay.doctor.asking import ask
from opencode_relay.doctor.ssh import ports_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_relay.doctor.relay import Relay

_RULE: Final = re.compile(r"(?P<to>\S.*?)\s+(?P<action>ALLOW|LIMIT|DENY|REJECT)(?: IN)?\s+Anywhere\b")
_PORTS: Final = re.compile(r"(?P<ports>[0-9][0-9,:]*)(?:/(?P<protocol>tcp|udp))?")
_SERVICES: Final = {22: "ssh", 80: "http", 443: "https"}


def check(relay: Relay) -> list[Finding]:
    """Look at ufw and firewalld, as far as they are there and on, and at the relay's own rules."""
    settings = settings_of(relay) or {}
    needed = ports_of(settings)
    if relay.gateway is not None and relay.gateway.has_site:
        needed += [80, relay.gateway.port]
    found = [*_ufw(needed), *_firewalld(needed), *_own(relay)]
    if not found:
        return [ok("firewall", "neither ufw nor firewalld is on")]
    return found


def _ufw(needed: list[int]) -> Iterator[Finding]:
    told = ask("ufw", "status", "verbose")
    if told is None or "Status: active" not in told.stdout:
        return
    shut = []
    if not re.search(r"^Default: allow \(incoming\)", told.stdout, re.MULTILINE):
        shut = [port for port in needed if not _is_admitted(port, told.stdout)]
    if shut:
        opening = "; ".join(f"sudo ufw allow {port}/tcp" for port in shut)
        yield fault("firewall", f"ufw is active and shuts port {', '.join(map(str, shut))}", f"`{opening}`")
    else:
        yield ok("firewall", f"ufw is active and lets port {', '.join(map(str, needed))} through")


def _is_admitted(port: int, status: str) -> bool:
    """Tell what the first rule that is about this port says, for whoever comes from anywhere."""
    for line in status.splitlines():
        rule = _RULE.match(line)
        if rule and _covers(rule["to"].removesuffix(" (v6)"), port):
            return rule["action"] in {"ALLOW", "LIMIT"}
    return False


def _covers(target: str, port: int) -> bool:
    if target == "Anywhere":
        return True
    plain = _PORTS.fullmatch(target)
    if plain is None:  # the name of an application
        profile = ask("ufw", "app", "info", target)
        lines = profile.stdout.splitlines() if profile and profile.returncode == 0 else []
        return any(_covers(line.strip(), port) for line in lines if _PORTS.fullmatch(line.strip()))
    if plain["protocol"] == "udp":
        return False
    for part in plain["ports"].split(","):
        first, _, last = part.partition(":")
        if int(first) <= port <= int(last or first):
            return True
    return False


def _firewalld(needed: list[int]) -> Iterator[Finding]:
    state = ask("firewall-cmd", "--state")
    if state is None or state.stdout.strip() != "running":
        return
    shut = [port for port in needed if not _firewalld_admits(port)]
    if shut:
        opening = " ".join(f"--add-port={port}/tcp" for port in shut)
        yield fault(
            "firewall",
            f"firewalld is running and shuts port {', '.join(map(str, shut))}",
            f"`sudo firewall-cmd --permanent {opening}`, then `sudo firewall-cmd --reload`",
        )
    else:
        yield ok("firewall", f"firewalld is running and lets port {', '.join(map(str, needed))} through")


def _firewalld_admits(port: int) -> bool:
    queries = [f"--query-port={port}/tcp"]
    if service := _SERVICES.get(port):
        queries.append(f"--query-service={service}")
    return any(
        told is not None and told.returncode == 0 for told in (ask("firewall-cmd", query) for query in queries)
    )


def _own(relay: Relay) -> Iterator[Finding]:
    """Look whether the rules that guard the tunnels are in force, where the role has written them."""
    if not (relay.etc / "firewall.nft").exists():
        return
    told = ask("nft", "list", "table", "inet", "opencode_relay")
    if told is None or told.returncode != 0:
        yield fault(
            "tunnels' firewall",
            "its rules are not in force, so that every account of this host reaches every laptop's OpenCode",
            "`systemctl restart opencode-relay-firewall`, and look for what drops all rules",
        )
    else:
        yield ok("tunnels' firewall", "its rules are in force")
