"""The launcher's settings: one frozen object, and the only reader of the environment.

Each setting may stand in the environment or, in lower case, in the user's `config.toml`; the environment wins.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import platformdirs

from opencode_connected import names
from opencode_connected.errors import UsageError
from opencode_connected.guard.policy import DEFAULT_RIGHTS, Right

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APP = "opencode-relay"
DEFAULT_REGISTRY_DIR = "/tmp/opencode-relay"  # noqa: S108 - the agreed place; its owner and mode are checked

VARIABLES = (
    "RELAY_SSH_CMD",
    "RELAY_REGISTRY_DIR",
    "INSTANCE_NAME",
    "RELAY_PORTS",
    "RELAY_CLIENT",
    "RELAY_REMOTE",
)
"""By these the environment sets what else stands in the file."""
PASSWORDS = ("OPENCODE_PASSWORD", "OPENCODE_SERVER_PASSWORD", "OPENCODE_SERVER_USERNAME")
"""What OpenCode and the guard ask for; in the environment alone."""
_OTHER_KEYS = {"RELAY_REMOTE": "remote"}
"""What is called otherwise in the file."""
_DIRECTORIES = "directories"
_OPEN_BELOW = "open_below"
_LISTS = (_DIRECTORIES, _OPEN_BELOW)
"""These stand in the file alone."""
_MAX_DIRECTORIES = 500
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_MAX_CONFIG_BYTES = 64 * 1024

_MEND = (
    "mend it, or move the file away, and where this machine is enrolled join again: opencode-connected enroll --join"
)

_DROPPED_FROM_CHILD = ("npm_config_package",)
"""Set by `npm exec`, and it makes OpenCode's own npm calls install that package instead of theirs."""


@dataclass(frozen=True)
class LauncherSettings:
    """What the launcher was told, validated."""

    relay_ssh_cmd: str | None
    """RELAY_SSH_CMD: how to open a shell on the relay, as one would type it. None: work without one."""
    relay_ssh_cmd_name: str
    """How to call it in an error: it may stand in the environment or in the file."""
    registry_dir: str
    """RELAY_REGISTRY_DIR: absolute; on the relay if there is one, else on this machine."""
    registry_dir_is_default: bool
    """It was not asked for: a provisioned relay, which has a registry of its own, is free to say so."""
    instance_name: str | None
    """INSTANCE_NAME: the name that was asked for explicitly, if any."""
    relay_ports: tuple[int, ...]
    """RELAY_PORTS, FIRST-LAST: where the tunnel's end on the relay may listen. Empty: anywhere."""
    relay_client: str | None
    """RELAY_CLIENT: what the relay's inventory calls this machine, where it is enrolled."""
    rights: frozenset[Right]
    """RELAY_REMOTE, `remote` in the file: what may come from afar."""
    directories: tuple[str, ...]
    """`directories` in the file: where, with everything below, may be worked from afar though no launcher opened it.
    Absolute, without symbolic links."""
    open_below: tuple[str, ...]
    """`open_below` in the file: in these, and below them, directories may be opened from afar while a headless
    launcher runs on OpenCode 2. Absolute, without symbolic links."""
    state_dir: Path
    """Runtime state and logs of this user's instances."""
    config_file: Path
    """Where the settings may stand besides the environment."""
    environment: Mapping[str, str] = field(repr=False)
    """What OpenCode inherits."""

    @property
    def key_file(self) -> Path:
        """The private key of this machine, where it is enrolled at a relay."""
        return self.config_file.with_name("relay_key")

    @property
    def known_hosts_file(self) -> Path:
        """What the relay proves itself with, where this machine is enrolled."""
        return self.config_file.with_name("relay_known_hosts")

    @property
    def service_file(self) -> Path:
        """The environment of the service that runs the launcher in the background."""
        return self.config_file.with_name("service.env")

    @property
    def is_enrolled(self) -> bool:
        """The relay is reached with the key that is this machine's own."""
        return str(self.key_file) in shlex.split(self.relay_ssh_cmd or "")

    @property
    def opencode_credentials(self) -> tuple[str, str] | None:
        """User and password that OpenCode 1 asks for, if it was given a password."""
        password = self.environment.get("OPENCODE_SERVER_PASSWORD")
        return (self.environment.get("OPENCODE_SERVER_USERNAME") or "opencode", password) if password else None

    @property
    def guard_credentials(self) -> tuple[str, str] | None:
        """User and password that the guard before OpenCode 2 asks for, if the person set a password.

        OpenCode's service itself has another one, of its own making.
        """
        password = self.environment.get("OPENCODE_PASSWORD")
        return ("opencode", password) if password else self.opencode_credentials


def load(environment: Mapping[str, str] | None = None) -> LauncherSettings:
    """Read the settings; `UsageError` names the variable or the file and what is allowed."""
    given = dict(os.environ if environment is None else environment)
    config_file = platformdirs.user_config_path(APP) / "config.toml"
    from_file, lists = _config(config_file)

    def setting(variable: str) -> tuple[str, str]:
        """Return the value (empty: unset) and how to call it in an error."""
        if value := given.get(variable, "").strip():
            return value, variable
        key = _key(variable)
        return from_file.get(key, ""), f"{key} in {config_file}"

    registry_dir, registry_dir_name = setting("RELAY_REGISTRY_DIR")
    ssh_command, ssh_command_name = setting("RELAY_SSH_CMD")
    return LauncherSettings(
        relay_ssh_cmd=_ssh_command(ssh_command, ssh_command_name),
        relay_ssh_cmd_name=ssh_command_name,
        registry_dir=_registry_dir(registry_dir, registry_dir_name),
        registry_dir_is_default=not registry_dir,
        instance_name=_instance_name(*setting("INSTANCE_NAME")),
        relay_ports=_port_range(*setting("RELAY_PORTS")),
        relay_client=_client(*setting("RELAY_CLIENT")),
        rights=_rights(*setting("RELAY_REMOTE")),
        directories=_directories(_DIRECTORIES, lists, config_file),
        open_below=_directories(_OPEN_BELOW, lists, config_file),
        state_dir=platformdirs.user_state_path(APP),
        config_file=config_file,
        environment={name: value for name, value in given.items() if name not in _DROPPED_FROM_CHILD},
    )


def _key(variable: str) -> str:
    return _OTHER_KEYS.get(variable, variable.lower())


def _config(path: Path) -> tuple[dict[str, str], dict[str, list[object]]]:
    """Return the settings that are strings, and those that are lists."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_CONFIG_BYTES:
        raise UsageError(
            f"{path} is larger than {_MAX_CONFIG_BYTES} bytes: it holds a few settings, no more; {_MEND}"
        )
    import tomllib  # noqa: PLC0415 - 14 ms that only those pay who have a file

    try:
        table = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}; {_MEND}") from error
    lists = {key: table.pop(key) for key in _LISTS if key in table}
    for key, given in lists.items():
        if not isinstance(given, list) or len(given) > _MAX_DIRECTORIES:
            raise UsageError(
                f'{path}: {key} must be a list of up to {_MAX_DIRECTORIES} strings, such as ["~/work"]; {_MEND}'
            )
    known = [*map(_key, VARIABLES), *_LISTS]
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{path}: unknown setting {key!r}; known are {', '.join(known)}; {_MEND}")
        if not isinstance(value, str):
            raise UsageError(f"{path}: {key} must be a string in quotes; {_MEND}")
    return {key: value.strip() for key, value in table.items()}, lists


def _ssh_command(value: str, where: str) -> str | None:
    try:
        return value if shlex.split(value) else None
    except ValueError as error:
        raise UsageError(
            f'{where} cannot be split into words ({error}): give a command as a shell takes it, e.g. "ssh me@relay"'
        ) from error


def _registry_dir(value: str, where: str) -> str:
    directory = value or DEFAULT_REGISTRY_DIR
    if not directory.startswith("/") or not directory.isprintable() or ".." in directory.split("/"):
        raise UsageError(f"{where} must be an absolute path without '..', e.g. {DEFAULT_REGISTRY_DIR}")
    return directory.rstrip("/") or "/"


def _instance_name(value: str, where: str) -> str | None:
    if value:
        try:
            names.validate_name(value)
        except ValueError as error:
            raise UsageError(
                f"{where}: {error}; allowed are 1 to {names.MAX_CHARACTERS} printable characters, "
                "no slash or backslash, no dot at the start"
            ) from error
    return value or None


def _client(value: str, where: str) -> str | None:
    if value and not re.fullmatch(names.CLIENT_NAME, value):
        raise UsageError(f"{where} must be 1 to 32 letters, digits, '_' and '-', first a letter or a digit")
    return value or None


def _port_range(value: str, where: str) -> tuple[int, ...]:
    if not value:
        return ()
    match = _PORTS.fullmatch(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise UsageError(f"{where} must be FIRST-LAST within 1024-65535, e.g. 10000-19999")
    return tuple(range(first, last + 1))


def _rights(value: str, where: str) -> frozenset[Right]:
    if not value:
        return DEFAULT_RIGHTS
    words = value.replace(",", " ").split()
    if unknown := [word for word in words if word not in tuple(Right)]:
        raise UsageError(f"{where} knows no {unknown[0]!a}: it is a set of the words {' '.join(Right)}")
    return frozenset(map(Right, words))


def _directories(key: str, lists: Mapping[str, list[object]], path: Path) -> tuple[str, ...]:
    found = []
    for value in lists.get(key, []):
        directory = os.path.expanduser(value) if isinstance(value, str) else ""  # noqa: PTH111 - "" must stay ""
        if not directory.startswith("/") or "\0" in directory:
            raise UsageError(f"{path}: {key} has {value!a}: each must be absolute, or begin with ~; {_MEND}")
        found.append(os.path.realpath(directory))
    return tuple(dict.fromkeys(found))
