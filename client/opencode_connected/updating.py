"""How each side is updated, in words for where two sides do not fit each other."""

from __future__ import annotations

from typing import Final

HERE: Final = "update opencode-relay on this machine: `git pull`, then `pipx install --force .` in its clone"
RELAY: Final = "update opencode-relay on the relay: `git pull`, then playbooks/relay.yml again"
OLDER_SIDE: Final = f"{HERE}; or, if that is up to date, on the relay: playbooks/relay.yml again"
