"""A person's desktop: a HOME of its own, programs that think they open a browser, and the person in front of it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import httpx

from support.chat.plain_http import NO_TLS
from support.gateway.person import Person
from support.processes import descendants, end_all, has_ended, with_home
from support.waiting import eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import psutil

PATIENCE = 60.0
"""Seconds for one command of a client: each takes 1 to 5 s alone."""
_ADDRESS = re.compile(r"https://\S+/authorize\?\S+(?=\s)")
_OPENERS = ("xdg-open", "open", "sensible-browser", "www-browser", "x-www-browser", "wslview")
_OPENER = """#!/bin/sh
for url; do :; done
printf '%s\\n' "$url" >>'{visited}'
"""


class Desktop:
    """A person's machine.

    Args:
        root: HOME and all else; made if it is missing.
        authority: the certificate that its programs trust, besides those that they bring.
        trust: whom the person's browser trusts.
    """

    def __init__(self, root: Path, authority: Path, trust: ssl.SSLContext) -> None:
        self.root = root
        self.home = root / "home"
        self.cwd = root / "project"
        self._authority = authority
        self._trust = trust
        self._visited = root / "visited"
        self._walked = 0
        self._started = 0
        self.seen: list[str] = []
        """What the pages said."""
        for directory in (self.home, self.cwd, root / "bin"):
            directory.mkdir(parents=True, exist_ok=True)
        self._visited.touch()
        for name in _OPENERS:
            opener = root / "bin" / name
            opener.write_text(_OPENER.format(visited=self._visited))
            opener.chmod(0o755)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a client."""
        authority = str(self._authority)
        return {
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            # No desktop that would know another browser.
            "XDG_DATA_DIRS": str(self.root / "share"),
            "BROWSER": str(self.root / "bin" / "xdg-open"),
            "NODE_EXTRA_CA_CERTS": authority,
            "SSL_CERT_FILE": authority,
            **(extra or {}),
        }

    def start(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        talks: bool = False,
        terminal: bool = False,
    ) -> RunningDesktop:
        """Start a client.

        Args:
            command: its program and arguments.
            env: what its environment has besides.
            talks: its standard input stays open for lines.
            terminal: standard input and output are a terminal, without which some open no browser.
        """
        self._started += 1
        stem = self.root / f"{self._started}"
        screen, line = os.openpty() if terminal else (None, None)
        with stem.with_suffix(".out").open("wb") as out, stem.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.cwd,
                env=self.environment(env),
                stdin=line or (subprocess.PIPE if talks else subprocess.DEVNULL),
                stdout=line or out,
                stderr=line or err,
                start_new_session=True,
            )
        running = RunningDesktop(process, stem.with_suffix(".out"), stem.with_suffix(".err"))
        if screen is not None and line is not None:
            os.close(line)
            running.copy(screen)
        return running

    def run(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        person: bool = False,
        terminal: bool = False,
        prints: bool = False,
    ) -> str:
        """Run a client to its end, and return what it printed; with `person` somebody goes where it sends them.

        With `prints` it opens no browser, and prints the address alone.

        Raises:
            ClientFailed: it ended with another code than 0.
        """
        with self.start(command, env, terminal=terminal) as running:
            if person:
                self.let_in(running, prints=prints)
            return running.end()

    def let_in(self, running: RunningDesktop, *, prints: bool = False) -> None:
        """Wait for the client to open a browser, or to print; log in there, allow all, and go back to the client."""

        def opened() -> str | None:
            urls = self._visited.read_text().splitlines()
            if prints and (printed := _ADDRESS.search(running.out.read_text())):
                return printed[0]
            if len(urls) > self._walked:
                return urls[self._walked]
            if running.process.poll() is not None:
                raise ClientFailed(f"it ended without a browser: {running.said}")
            return None

        url = eventually(opened, "a browser that the client opens", within=PATIENCE)
        assert url is not None
        self._walked = self.visits
        person = Person(self._trust)
        asyncio.run(person.visit(url))
        self.seen += person.seen
        answer = httpx.get(person.arrived, follow_redirects=True, trust_env=False, timeout=PATIENCE, verify=NO_TLS)
        assert answer.status_code == 200, answer.text

    def sweep(self) -> None:
        """End whatever was left running."""
        while left := [process for process in with_home(self.home) if not has_ended(process)]:
            end_all(left)

    @property
    def visits(self) -> int:
        """How often a browser was opened."""
        return len(self._visited.read_text().splitlines())


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


class ClientFailed(Exception):
    """A client ended with another code than 0, or did not answer."""


class RunningDesktop:
    """A client that runs; a context manager that leaves none of its processes behind."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self.out, self.err = out, err
        self._copying: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and all that it started."""
        left: list[psutil.Process] = descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        end_all(left)
        if self._copying:
            self._copying.join()
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def copy(self, screen: int) -> None:
        """Write down what comes to a terminal, until nobody holds it any more."""

        def read() -> None:
            with self.out.open("wb", buffering=0) as file, suppress(OSError), closing_descriptor(screen):
                while written := os.read(screen, 4096):
                    file.write(written)

        self._copying = threading.Thread(target=read)
        self._copying.start()

    @property
    def said(self) -> str:
        """The end of what it printed, for messages."""
        out, err = (file.read_text(errors="replace")[-3000:] for file in (self.out, self.err))
        return f"{out}\n--- errors:\n{err}"

    def end(self) -> str:
        """Wait for its end; return what it printed."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise ClientFailed(f"{self.process.args!r} does not end: {self.said}") from None
        if code:
            raise ClientFailed(f"{self.process.args!r} ended with {code}: {self.said}")
        return self.out.read_text(errors="replace")
