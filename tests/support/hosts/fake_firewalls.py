"""Stand-ins for ufw and firewalld, which would shut the ports of the machine that tests: what they print alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_UFW = """#!/bin/sh
case "$*" in
"status verbose") cat <<'END'
{status}
END
;;
*) echo "ERROR: Invalid syntax" >&2; exit 1 ;;
esac
"""
_FIREWALLD = """#!/bin/sh
case "$1" in
--state) echo running ;;
{admitted}) echo yes ;;
*) echo no; exit 1 ;;
esac
"""


def fake_ufw(directory: Path, *rules: str, default: str = "deny") -> None:
    """Put an `ufw` there that is active. `rules`: lines as `22/tcp                     ALLOW IN    Anywhere`."""
    head = [
        "Status: active",
        "Logging: on (low)",
        f"Default: {default} (incoming), allow (outgoing), disabled (routed)",
        "New profiles: skip",
        "",
        "To                         Action      From",
        "--                         ------      ----",
    ]
    _put(directory / "ufw", _UFW.format(status="\n".join([*head, *rules])))


def fake_firewalld(directory: Path, *admitted: str) -> None:
    """Put a `firewall-cmd` there that runs. `admitted`: what it says yes to, as `--query-service=ssh`."""
    _put(directory / "firewall-cmd", _FIREWALLD.format(admitted="|".join(admitted) or "nothing"))


def _put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
