"""What the server takes from `relay.json`, which says that this machine is a provisioned relay.

Of its keys these matter here: `{"portRange":"10000-19999","registryDir":"/var/lib/opencode-relay",
"stateDir":"/var/lib/opencode-relay-state","journalDays":14}`. A file from before the journal lacks the last two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from opencode_fleet.errors import SettingsError

RELAY_JSON: Final = Path("/etc/opencode-relay/relay.json")


class Provisioned(NamedTuple):
    """Where a provisioned relay keeps its registrations, and the ports that its clients' tunnels have.

    `state_dir`, `journal_days`: where its journal lies and how many days it keeps; None where the relay does not say.
    """

    registry_dir: Path
    ports: range
    state_dir: Path | None
    journal_days: int | None


# No control characters: directories are named in what people are shown.
_Directory = Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]+$", max_length=4096)]


class _RelayJson(BaseModel):
    registry_dir: Annotated[_Directory, Field(alias="registryDir")]
    port_range: Annotated[str, Field(alias="portRange")]
    state_dir: Annotated[_Directory | None, Field(alias="stateDir")] = None
    journal_days: Annotated[int | None, Field(alias="journalDays", ge=1, le=365, strict=True)] = None


def load_provisioned(path: Path) -> Provisioned | None:
    """Read `relay.json` at `path`; None where there is none, as on every other machine.

    Raises:
        SettingsError: one line that names the file, what is wrong with it, and the way out.
    """
    try:
        found = _RelayJson.model_validate_json(path.read_bytes())
        return Provisioned(
            Path(found.registry_dir),
            port_range(found.port_range),
            Path(found.state_dir) if found.state_dir is not None else None,
            found.journal_days,
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        problem = _WRONG.get(key, "is not a JSON object")
    except ValueError:
        problem = _WRONG["portRange"]
    raise SettingsError(f"{path} {problem}; run the playbook relay.yml again, or set RELAY_REGISTRY_DIR")


def port_range(value: str) -> range:
    """Return the ports of `LOW-HIGH`.

    Raises:
        ValueError: what it must be.
    """
    low, _, high = value.partition("-")
    if all(len(end) <= 5 and end.isascii() and end.isdigit() for end in (low, high)):
        first, last = int(low), int(high)
        if 1024 <= first <= last <= 65535:
            return range(first, last + 1)
    raise ValueError(_PORT_RANGE)


_PORT_RANGE: Final = "LOW-HIGH with 1024 <= LOW <= HIGH <= 65535"
_WRONG: Final = {
    "registryDir": "has no registryDir that is an absolute path",
    "portRange": f"has no portRange {_PORT_RANGE}",
    "stateDir": "has a stateDir that is no absolute path",
    "journalDays": "has a journalDays that is no whole number from 1 to 365",
}
