"""What the host itself may run out of, and whether its clock is right."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_common.finding import Finding, fault, note, ok

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_relay.doctor.relay import ExaminedRelay

_FREE_BYTES: Final = 1024 * 1024 * 1024
_FREE_PART: Final = 0.05
"""Of a small disk, or of its inodes."""
_PLACES: Final = ("/", "/var", "/var/log", "/var/lib/docker", "/tmp", "/run")  # noqa: S108 # looked at, not written to
_UNSYNCHRONISED: Final = 0x0040
_NANOSECONDS: Final = 0x2000
_MAX_OFFSET: Final = 1.0
"""Seconds. Codes that count once allow 30; certificates and tokens some minutes."""


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def check_disk(relay: ExaminedRelay) -> list[Finding]:
    """Look at every file system that something of the relay is written to."""
    places = [*_PLACES, str(relay.etc), str(relay.settings.registry_dir)]
    if relay.gateway is not None:
        places.append(str(relay.settings.gateway_data_dir))
    if relay.settings.state_dir is not None:
        places.append(str(relay.settings.state_dir))
    return disk(places)


def disk(places: Iterable[str | Path]) -> list[Finding]:
    """Return what is full, each file system once."""
    seen: set[int] = set()
    findings, room = [], []
    for place in places:
        try:
            device, status = Path(place).stat().st_dev, os.statvfs(place)
        except OSError:  # not there
            continue
        if device in seen or not status.f_blocks:
            continue
        seen.add(device)
        free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        if free < min(_FREE_BYTES, _FREE_PART * size):
            findings.append(
                fault(
                    "disk",
                    f"{place} has {free // 2**20} MB left of {size // 2**20}",
                    "Make room: `docker image prune`, `journalctl --vacuum-size=200M`, `apt-get clean`",
                )
            )
        elif status.f_files and status.f_favail < _FREE_PART * status.f_files:
            findings.append(
                fault("disk", f"{place} has no room for more files", f"Find many small ones: `du --inodes {place}`")
            )
        else:
            room.append(free)
    return findings or [ok("disk", f"there is room everywhere, {min(room) // 2**20} MB at least")]


def check_clock(_relay: ExaminedRelay) -> list[Finding]:
    """Ask the kernel whether something keeps its clock right, and how far off it is believed to be."""
    answer = _Timex()
    library = ctypes.CDLL(None, use_errno=True)
    if library.adjtimex(ctypes.byref(answer)) < 0:
        return [note("clock", f"the kernel does not say ({os.strerror(ctypes.get_errno())})")]
    return [clock(answer.status, answer.offset)]


def clock(status: int, offset: int) -> Finding:
    """Return what adjtimex's answer means."""
    seconds = abs(offset) / (1e9 if status & _NANOSECONDS else 1e6)
    if status & _UNSYNCHRONISED:
        return fault(
            "clock",
            "nothing keeps it right",
            "`timedatectl set-ntp true`; where that is not known, `apt-get install systemd-timesyncd`",
        )
    if seconds > _MAX_OFFSET:
        return fault("clock", f"it is {seconds:.1f} s off", "`timedatectl timesync-status`, `chronyc tracking`")
    return ok("clock", f"it is kept right, {seconds * 1000:.1f} ms off")
