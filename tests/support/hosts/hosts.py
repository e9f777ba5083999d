"""The hosts of a Molecule scenario: containers with systemd, and what is run on them."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

import testinfra  # type: ignore[import-untyped] # it has no types

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from testinfra.host import Host as InfraHost  # type: ignore[import-untyped] # as above

_RUN_SECONDS = 120.0
"""A command that takes longer than this hangs."""
_PING_SECONDS = 5.0
# The process group is told first, as the end of `docker exec` ends nothing in the container.
_TELL_GROUP = 'echo "$$"; exec "$@"'


class Host:
    """One host. `infra`: testinfra's view of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.infra: InfraHost = testinfra.get_host(f"docker://{name}")

    def run(
        self,
        *command: str,
        user: str = "root",
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        within: float = _RUN_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with `check` it must succeed. `within`: seconds."""
        done = subprocess.run(
            self.exec_command(*command, user=user, env=env),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{shlex.join(command)} on {self.name}: {done.stdout}{done.stderr}"
        return done

    def output(self, *command: str, user: str = "root", env: Mapping[str, str] | None = None) -> str:
        """Run a command that must succeed; return its standard output without the last newline."""
        return self.run(*command, user=user, env=env).stdout.rstrip("\n")

    def python(self, program: str, *arguments: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a Python program to its end, whatever comes of it."""
        return self.run("python3", "-c", program, *arguments, user=user, check=False)

    def succeeds(self, *command: str, user: str = "root") -> bool:
        """Tell whether a command succeeds."""
        return self.run(*command, user=user, check=False).returncode == 0

    def exec_command(
        self, *command: str, user: str = "root", env: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Return the command that runs `command` there from here."""
        variables = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
        return ("docker", "exec", "--interactive", "--user", user, *variables, self.name, *command)

    def interface(self) -> tuple[str, str, int]:
        """Return its device on the scenario's network, its IPv4 address and how long its network's prefix is."""
        # One with an engine of its own has that one's bridge besides.
        (way,) = json.loads(self.output("ip", "-json", "-4", "route", "show", "default"))
        (device,) = json.loads(self.output("ip", "-json", "-4", "address", "show", "dev", way["dev"]))
        (address,) = device["addr_info"]
        return device["ifname"], address["local"], address["prefixlen"]

    def address(self) -> str:
        """Return its IPv4 address on the scenario's network."""
        return self.interface()[1]

    def reboot(self) -> None:
        """Restart it as a whole, and wait until it is up."""
        subprocess.run(["docker", "restart", "--time", "20", self.name], capture_output=True, check=True)
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until systemd has started everything."""

        def is_up() -> bool:
            done = self.run("systemctl", "is-system-running", "--wait", check=False)
            return done.stdout.strip() in {"running", "degraded"}

        eventually(is_up, f"{self.name} is up", within=_RUN_SECONDS)


class RunningProgram:
    """A command that runs on a host for a while; a context manager that leaves nothing of it behind."""

    def __init__(self, host: Host, *command: str, user: str = "root", env: Mapping[str, str] | None = None) -> None:
        self.host = host
        self._process = subprocess.Popen(
            host.exec_command("sh", "-c", _TELL_GROUP, "sh", *command, user=user, env=env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._writing = threading.Lock()
        self._lines: list[str] = []
        self._errors: list[str] = []
        assert self._process.stdout is not None
        self._group = int(self._process.stdout.readline())
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._lines), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self._errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.signal("KILL")
        self._process.wait(_RUN_SECONDS)
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what it never read
                pipe.close()

    @property
    def lines(self) -> list[str]:
        """What it wrote to standard output so far."""
        return list(self._lines)

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return "".join(self._errors)

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self._process.poll() is not None

    def write(self, text: str) -> None:
        """Write to its standard input; nothing happens if it does not read any more."""
        assert self._process.stdin is not None
        with self._writing, suppress(BrokenPipeError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()

    def signal(self, name: str) -> None:
        """Signal it and what it started there, as far as it is alive."""
        if not self.is_over:
            self.host.run("kill", f"-{name}", "--", f"-{self._group}", check=False)

    def ended(self, within: float = _RUN_SECONDS) -> int:
        """Wait for its end and for all that it wrote; return its exit status."""
        status = self._process.wait(within)
        for reader in self._readers:
            reader.join(within)
        return status

    def wait_for(self, matches: Callable[[str], bool], what: str, *, after: int = 0, within: float = 60.0) -> int:
        """Return the index of the first line from `after` on that matches."""

        def found() -> tuple[int] | None:
            lines = self.lines
            numbers = (number for number in range(after, len(lines)) if matches(lines[number]))
            number = next(numbers, None)
            if number is not None:
                return (number,)
            if self.is_over and not any(reader.is_alive() for reader in self._readers):
                raise RuntimeError(f"it ended without {what}: {self.errors}")
            return None

        match = eventually(found, what, within=within)
        assert match is not None
        return match[0]

    def _read(self, pipe: IO[bytes], into: list[str]) -> None:
        into.extend(line.decode(errors="replace") for line in pipe)


class ShellSession(RunningProgram):
    """An ssh whose other end speaks the line protocol; `command` starts it on `host`. It pings as a launcher does."""

    def __init__(self, host: Host, *command: str) -> None:
        super().__init__(host, *command)
        self._heard = 0
        self._over = threading.Event()
        self._pinger = threading.Thread(target=self._ping, daemon=True)
        self._pinger.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pinger.join()
        super().__exit__(kind, error, trace)

    def hear(self, kind: str, *, within: float = 60.0) -> dict[str, Any]:
        """Return the next message of type `kind`, passing over others."""
        number = self.wait_for(
            lambda line: _message(line).get("type") == kind, f"a message {kind}", after=self._heard, within=within
        )
        self._heard = number + 1
        return _message(self.lines[number])

    def say(self, **message: object) -> None:
        """Send a message."""
        self.write(json.dumps(message) + "\n")

    def _ping(self) -> None:
        number = 0
        while not self._over.wait(_PING_SECONDS):
            number += 1
            self.say(type="ping", n=number)


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
