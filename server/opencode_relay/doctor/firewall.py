"""Whether firewalls that people have set up shut what laptops and phones need, and whether the relay's own is on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opencode_common.finding import Finding, fault, ok
from opencode_relay.doctor.asking import ask
from opencode_relay.doctor.ssh import ports_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opencode_relay.doctor.relay import ExaminedRelay

_RULE: Final = re.compile(r"(?P<to>\S.*?)\s+(?P<action>ALLOW|LIMIT|DENY|REJECT)(?: IN)?\s+Anywhere\b")
_PORTS: Final = re.compile(r"(?P<ports>[0-9][0-9,:]*)(?:/(?P<protocol>tcp|udp))?")
_SERVICES: Final = {22: "ssh", 80: "http", 443: "https"}


def check(relay: ExaminedRelay) -> list[Finding]:
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
        # Behind the ports stands, in brackets, the application that a person named, or that it is about IPv6.
        if rule and _covers(rule["to"].partition(" (")[0], port):
            return rule["action"] in {"ALLOW", "LIMIT"}
    return False


def _covers(target: str, port: int) -> bool:
    if target == "Anywhere":
        return True
    plain = _PORTS.fullmatch(target)
    if plain is None or plain["protocol"] == "udp":
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


def _own(relay: ExaminedRelay) -> Iterator[Finding]:
    """Look whether the rules that guard tunnels and gateway are in force, where the roles have written them."""
    tunnels = relay.etc / "firewall.nft"
    if tunnels.exists():
        yield _in_force(
            "tunnels' firewall",
            "opencode_relay",
            tunnels,
            harm="every account of this host reaches every laptop's OpenCode",
            unit="opencode-relay-firewall",
        )
    if relay.gateway is not None:
        yield _in_force(
            "gateway's firewall",
            "opencode_gateway",
            relay.etc / "gateway.nft",
            harm="every account of this host reaches the gateway, which believes whatever it says about who asks",
            unit="opencode-gateway-firewall",
        )


def _in_force(check: str, table: str, file: Path, *, harm: str, unit: str) -> Finding:
    """Compare what the kernel has with what the file means.

    `harm`: what holds without the rules; `unit`: what loads them.
    """
    remedy = f"`systemctl reload-or-restart {unit}`"
    if not file.exists():
        return fault(check, f"{file} is missing", "Run the playbook relay.yml")
    now = ask("nft", "list", "table", "inet", table)
    if now is None or now.returncode != 0:
        return fault(check, f"its rules are not in force, so that {harm}", f"{remedy}, and look for what drops them")
    # In a network namespace of its own, where nft says both in the same words.
    loading = 'nft --file "$1" && nft list table inet "$2"'
    meant = ask("unshare", "--net", "sh", "-c", loading, "sh", str(file), table)
    if meant is None or (meant.returncode != 0 and "unshare" in meant.stderr):
        return ok(check, "its rules are in force; whether somebody has changed them cannot be seen here")
    if meant.returncode != 0:
        told = next((line for line in meant.stderr.splitlines() if "Error" in line), "nft refuses it")
        return fault(
            check,
            f"{file} cannot be loaded any more, so that its rules are gone with the next boot ({told})",
            "Where it names an account, make that anew; else run the playbook relay.yml",
        )
    if now.stdout != meant.stdout:
        return fault(
            check, f"what is in force is not what {file} says: somebody has changed it since it was loaded", remedy
        )
    return ok(check, "its rules are in force")
