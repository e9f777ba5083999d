"""Caddy as the relay has it in front of the gateway: TLS on loopback, with a certificate authority of its own."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import psutil
from jinja2 import Environment

from support.ports import free_port, is_open
from support.waiting import eventually

_START_SECONDS = 90.0
"""It takes 0.3 s alone."""
_STOP_SECONDS = 10.0
# Nothing is installed into the machine's trust, and nothing but this port is listened on.
_SITE = Path(__file__).parents[3] / "roles" / "relay_gateway" / "templates" / "gateway.caddy.j2"
_CADDYFILE = """
{{
    admin off
    grace_period 1s
    auto_https disable_redirects
    skip_install_trust
    local_certs
    storage file_system {directory}
    servers {{
        protocols h1 h2
    }}
}}
"""


def _site(url: str, upstream: int) -> str:
    """Return the role's own site, on loopback."""
    environment = Environment(autoescape=False, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - no HTML
    environment.filters["comment"] = lambda text: f"# {text}"
    values = {"ansible_managed": "by the tests", "relay_tls": "internal", "relay_gateway_port": upstream}
    site = environment.from_string(_SITE.read_text()).render(relay_domain=url, **values)
    opening = f"{url} {{\n"
    assert site.count(opening) == 1
    return site.replace(opening, f"{opening}\tbind 127.0.0.1\n")


class Caddy:
    """A Caddy that serves `url`, once it is started. All that it keeps is in `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._port = free_port()
        self.url = f"https://localhost:{self._port}"
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, upstream: int) -> None:
        """Start it, forwarding to 127.0.0.1:`upstream`, and wait until it has its certificate."""
        home = str(self._directory)
        caddyfile = self._directory / "Caddyfile"
        caddyfile.write_text(_CADDYFILE.format(directory=home) + _site(self.url, upstream))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["caddy", "run", "--adapter", "caddyfile", "--config", str(caddyfile)],
                env={"HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home, "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(self._serves, f"Caddy on port {self._port}", within=_START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        assert self._process is not None, "not started"
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def process(self) -> psutil.Process:
        """Caddy."""
        assert self._process is not None, "not started"
        return psutil.Process(self._process.pid)

    def trust(self) -> ssl.SSLContext:
        """Return a context that trusts its authority, and nobody else."""
        return ssl.create_default_context(cafile=self.authority)

    @property
    def authority(self) -> Path:
        """Its authority's certificate."""
        return self._directory / "pki" / "authorities" / "local" / "root.crt"

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"caddy ended with {self._process.returncode}: {self._log.read_text()[-2000:]}")
        return is_open(self._port) and any(self._directory.glob("certificates/local/*/*.crt"))
