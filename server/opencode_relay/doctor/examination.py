"""All checks at once. Whatever hangs, the whole ends in bounded time."""

from __future__ import annotations

import threading
import time
from queue import Empty, Queue
from typing import TYPE_CHECKING, Final

from opencode_common.finding import Finding, fault
from opencode_relay.doctor import firewall, inside, machine, ssh, web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_relay.doctor.relay import ExaminedRelay

    Check = Callable[[ExaminedRelay], list[Finding]]

_SECONDS: Final = 9.5
CHECKS: Final[Mapping[str, Check]] = {
    "web": web.check,
    "gateway": web.check_gateway,
    "ssh": ssh.check,
    "firewall": firewall.check,
    "agent": inside.check_agent,
    "tunnels": inside.check_tunnels,
    "record": inside.check_record,
    "state": inside.check_state,
    "disk": machine.check_disk,
    "clock": machine.check_clock,
}
"""In the order in which they are shown."""


def examine(relay: ExaminedRelay, checks: Mapping[str, Check] = CHECKS, *, within: float = _SECONDS) -> list[Finding]:
    """Return what all checks say, in their order; what is not done `within` seconds is a fault."""
    answers: Queue[tuple[str, list[Finding]]] = Queue()
    for name, check in checks.items():
        # Daemons: a resolver that hangs must not keep the program from ending.
        threading.Thread(target=_answer, args=(answers, name, check, relay), daemon=True).start()
    found: dict[str, list[Finding]] = {}
    deadline = time.monotonic() + within
    while len(found) < len(checks):
        try:
            name, findings = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        found[name] = findings
    late = f"it is not answered within {within:g} s"
    return [
        finding
        for name in checks
        for finding in found.get(name, [fault(name, late, "Something there hangs: run this again, and look there")])
    ]


def _answer(answers: Queue[tuple[str, list[Finding]]], name: str, check: Check, relay: ExaminedRelay) -> None:
    try:
        findings = check(relay)
    except Exception as error:  # noqa: BLE001 # one check must not keep the others from being seen
        told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        findings = [
            fault(name, f"it cannot be looked at ({told})", "Run this as root, and report it if that is no help")
        ]
    answers.put((name, findings))
