"""What `opencode-relay doctor` says of the real ufw and firewalld: in a container, since to install them starts them.

They run in namespaces of their own, with settings of their own: nothing of the machine that tests is shut.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from opencode_common.finding import Finding

if TYPE_CHECKING:
    from pathlib import Path

_SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_LOOK = """
import sys
from opencode_relay.doctor import firewall
from opencode_common.finding import to_json
print(to_json(list(getattr(firewall, sys.argv[1])([22, 80, 443]))))
"""
# Whatever they write, sockets included, goes with the namespaces; so do the processes.
_INSIDE = """
set -e
mount -t tmpfs tmpfs /run
for settings in /etc/ufw /etc/default /etc/firewalld; do
    [ ! -d "$settings" ] || { cp -a "$settings" "$1" && mount --bind "$1/${settings##*/}" "$settings"; }
done
ip link set lo up
python=$2 program=$3
look() { "$python" -c "$program" "$1"; }
quietly() { "$@" >/dev/null 2>&1; }
"""
_UFW = """
quietly ufw --force reset
look _ufw
quietly ufw --force enable
look _ufw
quietly ufw allow OpenSSH || quietly ufw allow 22/tcp
quietly ufw allow from 10.0.0.0/8 to any port 80
quietly ufw limit 443/tcp
look _ufw
quietly ufw allow 80:90/tcp
look _ufw
quietly ufw insert 1 deny 443
look _ufw
quietly ufw default allow incoming
look _ufw
"""
_FIREWALLD = """
look _firewalld
mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile
firewalld --nofork --nopid >/dev/null 2>&1 &
tries=600
until [ "$(firewall-cmd --state 2>&1)" = running ] || [ $((tries -= 1)) -eq 0 ]; do sleep 0.1; done
look _firewalld
quietly firewall-cmd --add-service=http
look _firewalld
quietly firewall-cmd --add-port=443/tcp
look _firewalld
quietly firewall-cmd --remove-service=ssh
look _firewalld
"""


def _looks(directory: Path, script: str) -> list[list[Finding]]:
    """Return what each look of the script found."""
    command = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    inside = ["sh", "-c", _INSIDE + script, "sh", str(directory), sys.executable, _LOOK]
    done = subprocess.run(
        [*command, *inside],
        env={**os.environ, "PATH": _SBIN},
        stdout=subprocess.PIPE,
        text=True,
        timeout=150,
        check=True,
    )
    return [[Finding(**found) for found in json.loads(line)["findings"]] for line in done.stdout.splitlines()]


@pytest.mark.timeout(180)
def test_what_the_real_ufw_shuts_is_named(tmp_path: Path) -> None:
    off, *on = _looks(tmp_path, _UFW)
    assert off == []
    assert [found.text for (found,) in on] == [
        "ufw is active and shuts port 22, 80, 443",
        "ufw is active and shuts port 80",
        "ufw is active and lets port 22, 80, 443 through",
        "ufw is active and shuts port 443",
        "ufw is active and lets port 22, 80, 443 through",
    ]


@pytest.mark.timeout(180)
def test_what_the_real_firewalld_shuts_is_named(tmp_path: Path) -> None:
    off, *on = _looks(tmp_path, _FIREWALLD)
    assert off == []
    assert [found.text for (found,) in on] == [
        "firewalld is running and shuts port 80, 443",
        "firewalld is running and shuts port 443",
        "firewalld is running and lets port 22, 80, 443 through",
        "firewalld is running and shuts port 22",
    ]
