"""The server's settings: one frozen object, the only reader of the environment."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_fleet.credentials import read_credentials
from opencode_fleet.errors import SettingsError
from opencode_fleet.provisioned import RELAY_JSON, load_provisioned, port_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_REGISTRY_DIR: Final = Path("/tmp/opencode-relay")  # noqa: S108 - the documented default; whoever registers there checks its owner and mode
_MARK_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All settings, validated; the defaults are those of a machine that is no provisioned relay.

    Times are in seconds; the variables that carry `_MS` are in milliseconds.
    """

    registry_dir: Path = _REGISTRY_DIR
    """`RELAY_REGISTRY_DIR`: where the registration files lie."""
    discovery_interval: float = 30.0
    """`DISCOVERY_INTERVAL_MS`: full rescan, and the least time over which a dead registration must stay dead."""
    health_timeout: float = 3.0
    """`HEALTH_CHECK_TIMEOUT_MS`: one health check."""
    transport: str = "local-relay"
    """`TRANSPORT`: the backend."""
    send_timeout: float = 300.0
    """`SEND_TIMEOUT_MS`: how long `send` and `reply` wait for the turn's end."""
    credentials_file: Path | None = None
    """`RELAY_CREDENTIALS_FILE`: `{"instance": {"username": "opencode", "password": "…"}}`."""
    ports: range = range(1024, 65536)
    """`RELAY_PORT_RANGE`: ports that a registration may name, `LOW-HIGH`."""
    state_dir: Path | None = None
    """`RELAY_STATE_DIR`: where the journal lies; None where no home directory is known either."""
    journal_days: int = 14
    """`RELAY_JOURNAL_DAYS`: for how long the journal remembers."""
    callers_told: bool = False
    """`RELAY_CALLERS`: `told` by a parent that says of each call who makes it, as the gateway does."""
    uploads_dir: Path | None = None
    """`RELAY_UPLOADS_DIR`: what a parent with a page for uploads fills, as the gateway; None where there is none."""
    uploads_url: str = ""
    """`RELAY_UPLOADS_URL`: where that page is; what comes behind it is the secret of one upload."""

    def called_by_its_account(self) -> ServerSettings:
        """Return them for a server that has no parent: whoever calls it is the account that it runs as."""
        return replace(self, callers_told=False)


def _whole_number(value: str) -> int | None:
    # Beyond some thousand digits int() has an error of its own.
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def _milliseconds(low: int, high: int) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = _whole_number(value)
        if number is None or not low <= number <= high:
            raise ValueError(f"a whole number of milliseconds from {low} to {high}")
        return number / 1000

    return parse


def _days(value: str) -> int:
    number = _whole_number(value)
    if number is None or not 1 <= number <= 365:
        raise ValueError("a whole number of days from 1 to 365")
    return number


def _directory(value: str) -> Path:
    try:
        path = Path(value).expanduser()
    except RuntimeError:  # ~somebody who is no user
        path = Path()
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


def _credentials_file(value: str) -> Path:
    path = _directory(value)
    # Not Path.is_file: it raises where a directory above cannot be entered, or a name is too long.
    if not os.path.isfile(path):  # noqa: PTH113
        raise ValueError("an absolute path of a readable JSON file")
    # It is read anew at each use; but what is wrong now should not wait for an instance that wants a password.
    read_credentials(path)
    return path


def _told(value: str) -> bool:
    if value != "told":
        raise ValueError("told, or not be set")
    return True


def _address(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("an address, https://HOST/PATH")
    return value.rstrip("/")


_VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "RELAY_REGISTRY_DIR": ("registry_dir", _directory),
    "DISCOVERY_INTERVAL_MS": ("discovery_interval", _milliseconds(100, 3_600_000)),
    "HEALTH_CHECK_TIMEOUT_MS": ("health_timeout", _milliseconds(50, 60_000)),
    "TRANSPORT": ("transport", str),
    "SEND_TIMEOUT_MS": ("send_timeout", _milliseconds(1_000, 86_400_000)),
    "RELAY_CREDENTIALS_FILE": ("credentials_file", _credentials_file),
    "RELAY_PORT_RANGE": ("ports", port_range),
    "RELAY_STATE_DIR": ("state_dir", _directory),
    "RELAY_JOURNAL_DAYS": ("journal_days", _days),
    "RELAY_CALLERS": ("callers_told", _told),
    "RELAY_UPLOADS_DIR": ("uploads_dir", _directory),
    "RELAY_UPLOADS_URL": ("uploads_url", _address),
}
assert {name for name, _ in _VARIABLES.values()} == {field.name for field in fields(ServerSettings)}  # noqa: S101 - a guard for whoever adds a setting


def load_settings(
    environ: Mapping[str, str], transports: Mapping[str, object], relay_json: Path = RELAY_JSON
) -> ServerSettings:
    """Read the settings from `environ`; an empty variable counts as unset.

    On a provisioned relay, which has `relay_json`, that file gives the defaults of registry directory, ports, state
    directory and days. Whoever names another registry is not served by its agent, so the rest does not bind them.

    Raises:
        SettingsError: one line that names the variable and the allowed values, or what is wrong with `relay_json`.
    """
    values: dict[str, object] = {}
    if not environ.get("RELAY_REGISTRY_DIR", "").strip() and (relay := load_provisioned(relay_json)):
        # A relay of an earlier version leaves some of them out.
        values |= {name: value for name, value in relay._asdict().items() if value is not None}
    for variable, (field, parse) in _VARIABLES.items():
        raw = environ.get(variable, "").strip()
        if not raw:
            continue
        try:
            values[field] = parse(raw)
        except ValueError as error:
            raise SettingsError(f"{variable} is {raw[:80]!r}; it must be {error}") from None
    settings = ServerSettings(**values)  # type: ignore[arg-type] # each value was made by the parser of its field
    if settings.state_dir is None:
        settings = replace(settings, state_dir=_user_state_dir(environ, settings.registry_dir))
    if settings.transport not in transports:
        known = ", ".join(sorted(transports))
        raise SettingsError(f"TRANSPORT is {settings.transport[:80]!r}; it must be one of: {known}")
    return settings


def _user_state_dir(environ: Mapping[str, str], registry_dir: Path) -> Path | None:
    """Return where programs of this user keep what they remember, apart for each registry.

    Of two servers of one journal, one would record the instances of both, and miss those of the other.
    """
    for base in (Path(environ.get("XDG_STATE_HOME", "")), Path(environ.get("HOME", "")) / ".local" / "state"):
        if base.is_absolute():
            own = base / "opencode-relay"
            if registry_dir == _REGISTRY_DIR:
                return own
            return own / f"registry-{hashlib.sha256(os.fsencode(registry_dir)).hexdigest()[:_MARK_CHARACTERS]}"
    return None
