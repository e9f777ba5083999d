"""`enroll`: make this machine's key for a relay, and, once the relay knows it, write down how to get there."""

from __future__ import annotations

import re
import shlex
import socket
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel
from rich.text import Text

from opencode_connected.background import environment
from opencode_connected.client_key import make_key, old_key_file, public_key, replace_key
from opencode_connected.configuration import with_settings
from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.files import write_private
from opencode_connected.join import JoinLine, parse_join_line
from opencode_connected.names import CLIENT_NAME
from opencode_connected.result import CommandResult

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from opencode_connected.settings import LauncherSettings

_MAX_NAME: Final = 32
_INDENTATION: Final = 4
"""Of `relay_clients` in the sample inventory: what is printed can be pasted as it is."""
_UNQUOTABLE: Final = frozenset('"\\%$')
"""What ssh's options would not take as it stands."""
_PROXY_SECONDS: Final = 30
"""ssh's patience with a proxy command: gcloud alone takes seconds to start."""


class Joined(BaseModel):
    """How this machine reaches its relay."""

    client: str
    host: str
    port: int
    user: str
    ports: str
    """FIRST-LAST, of the relay."""
    relay_ssh_cmd: str
    known_hosts_file: str


class EnrollResult(CommandResult):
    """The key, and what was written."""

    changed: bool
    """Something was made or written, or, with `--check`, would be."""
    key_file: str
    public_key: str | None
    """None if, with `--check`, there is none yet."""
    old_key_file: str | None = None
    """Where the key is kept that `--new-key` replaced, if there was one."""
    name: str
    """What the relay's inventory should call, or calls, this machine."""
    inventory: str | None
    """The line for `relay_clients` in the relay's inventory."""
    config_file: str
    joined: Joined | None
    """None without `--join`."""
    warnings: list[str]

    def as_text(self) -> list[RenderableType]:
        """What was done, and the next step."""
        lines = self._joined(self.joined) if self.joined else self._key()
        return [*map(Text, lines), *(Text(f"warning: {warning}", style="yellow") for warning in self.warnings)]

    def _key(self) -> list[str]:
        if self.inventory is None:
            place = f"; the one that is there would be kept as {self.old_key_file}" if self.old_key_file else ""
            return [f"would make the key {self.key_file}{place}"]
        return [
            f"This machine's key is {self.key_file}; it stays here.",
            *self._replaced(),
            "The relay's administrator needs its entry for the inventory, such as playbooks/inventory/unmanaged.yml:",
            "this stands there below `vars:`; if machines are listed already, only its last line goes below theirs,",
            "in the place of this machine's own, if there is one.",
            "",
            *(f"{'':<{_INDENTATION}}{line}" for line in ("relay_clients:", f"  {self.inventory}")),
            "",
            "The playbook for the relay then prints a join line for this machine. Finish with:",
            "",
            "  opencode-connected enroll --join JOIN-LINE",
        ]

    def _replaced(self) -> list[str]:
        if self.old_key_file is None:
            return []
        return [
            f"The one before it is kept as {self.old_key_file}, and used no more: until the relay has the new one,",
            "what runs here stays connected for as long as its line holds, and no longer.",
        ]

    def _joined(self, joined: Joined) -> list[str]:
        done = "is written to" if self.changed else "was already in"
        return [
            f"The way to {joined.host} {done} {self.config_file}: enrolled as {joined.client}, ports {joined.ports}.",
            "`opencode-connected doctor` tries it; launchers that run take it at their next try, within a minute.",
        ]


def enroll(settings: LauncherSettings, *, name: str | None, check: bool, new_key: bool = False) -> EnrollResult:
    """Make this machine's key unless there is one. `check`: only tell whether it would be made.

    `new_key`: make another one, whatever is there.

    Raises:
        UsageError: `name` is none that an inventory can have.
        LauncherError: there can be no key.

    """
    if name is not None and not re.fullmatch(CLIENT_NAME, name):
        raise UsageError(
            f"--name {name!a} cannot be: 1 to {_MAX_NAME} letters, digits, '_' and '-', first a letter or a digit"
        )
    name = name or settings.relay_client or _default_name()
    if new_key:
        old = str(old_key_file(settings.key_file)) if settings.key_file.exists() else None
        key = None if check else replace_key(settings.key_file)
        return _result(settings, name, key, changed=True, old_key_file=old)
    known = public_key(settings.key_file)
    key = known if known or check else make_key(settings.key_file)
    return _result(settings, name, key, changed=known is None)


def join(settings: LauncherSettings, line: str, *, proxy_command: str | None, check: bool) -> EnrollResult:
    """Write down how to reach the relay that `line` describes. `check`: only tell whether anything would change.

    `proxy_command`: what ssh is to run instead of connecting by itself, as ssh_config(5) has it.

    Raises:
        UsageError: `line` is no join line, or a file cannot be changed.
        LauncherError: this machine has no key, or a file cannot be written.

    """
    relay = parse_join_line(line)
    key = public_key(settings.key_file)
    if key is None:
        raise LauncherError(
            "this machine has no key that the relay could know: run `opencode-connected enroll` first"
        )
    command = _ssh_command(settings, relay, proxy_command)
    known_hosts = f"{relay.host} {relay.host_key}\n"
    before = _read(settings.config_file)
    written = {"relay_ssh_cmd": command, "relay_ports": relay.ports, "relay_client": relay.client}
    config = with_settings(before, written)
    new = [(settings.known_hosts_file, known_hosts), (settings.config_file, config)]
    changes = [(path, content) for path, content in new if _read(path) != content]
    if not check:
        for path, content in changes:
            _write(path, content)
    joined = Joined(
        client=relay.client,
        host=relay.host,
        port=relay.port,
        user=relay.user,
        ports=relay.ports,
        relay_ssh_cmd=command,
        known_hosts_file=str(settings.known_hosts_file),
    )
    return _result(settings, relay.client, key, changed=bool(changes), joined=joined)


def _result(
    settings: LauncherSettings,
    name: str,
    key: str | None,
    *,
    changed: bool,
    joined: Joined | None = None,
    old_key_file: str | None = None,
) -> EnrollResult:
    return EnrollResult(
        changed=changed,
        key_file=str(settings.key_file),
        public_key=key,
        old_key_file=old_key_file,
        name=name,
        inventory=f'- {{name: "{name}", key: "{key}"}}' if key else None,
        config_file=str(settings.config_file),
        joined=joined,
        warnings=_overridden(settings, joined) if joined else [],
    )


def _overridden(settings: LauncherSettings, joined: Joined) -> list[str]:
    written = {
        "RELAY_SSH_CMD": joined.relay_ssh_cmd,
        "RELAY_PORTS": joined.ports,
        "RELAY_CLIENT": joined.client,
    }
    service = _read(settings.service_file)
    return [
        f"{variable} in the environment wins over what was written: remove it from your shell's profile"
        for variable, value in written.items()
        if settings.environment.get(variable, "").strip() not in ("", value)
    ] + [
        f"{variable} of when the service was installed wins there over what was written: run "
        "`opencode-connected service install` again in a shell without it"
        for variable, value in written.items()
        if environment.setting(service, variable).strip() not in ("", value)
    ]


def _default_name() -> str:
    host = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", host).strip("-_")[:_MAX_NAME] or "laptop"


def _ssh_command(settings: LauncherSettings, relay: JoinLine, proxy_command: str | None) -> str:
    for path in (settings.key_file, settings.known_hosts_file):
        if _UNQUOTABLE & set(str(path)) or not str(path).isprintable():
            raise UsageError(f"ssh cannot be given the path {str(path)!a}: set XDG_CONFIG_HOME to a plainer one")
    if proxy_command is not None and (not proxy_command.strip() or not proxy_command.isprintable()):
        raise UsageError("--proxy-command must be one line, as ssh_config(5) has it for ProxyCommand")
    proxy = ("-o", f"ConnectTimeout={_PROXY_SECONDS}", "-o", f"ProxyCommand={proxy_command}") if proxy_command else ()
    return shlex.join(
        [
            "ssh",
            *("-i", str(settings.key_file)),
            *("-o", "IdentitiesOnly=yes"),
            *("-o", "IdentityAgent=none"),
            *("-o", f'UserKnownHostsFile="{settings.known_hosts_file}"'),
            *("-o", "GlobalKnownHostsFile=none"),
            *("-o", "StrictHostKeyChecking=yes"),
            # The key is looked up by this name, whatever the port is and ssh_config makes of the host.
            *("-o", f"HostKeyAlias={relay.host}"),
            *proxy,
            *("-p", str(relay.port)),
            f"{relay.user}@{relay.host}",
        ]
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"cannot read {path}: {error}") from error


def _write(path: Path, content: str) -> None:
    try:
        write_private(path.resolve(), content)  # a link to where one keeps one's dot files stays one
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from error
