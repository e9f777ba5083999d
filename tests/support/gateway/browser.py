"""A real Chromium, and sites for it: https under any name, each name on this machine alone."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import expect, sync_playwright

from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp

SCREENSHOTS = Path(__file__).parents[3] / ".work" / "screenshots"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_SECONDS = 90.0
_LOOK_MILLISECONDS = 30_000
"""How long a page may take to show what is expected: Chromium shares the processors with everything else."""


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Start Debian's Chromium, headless. It finds every name on this machine, so that nothing goes to the network.

    Args:
        more: arguments.
    """
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    assert found, "Chromium is missing: run tests/support/setup.sh packages test"
    arguments = ["--host-resolver-rules=MAP * 127.0.0.1", *more]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to start as root with one
    expect.set_options(timeout=_LOOK_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def screenshot(page: Page, name: str) -> None:
    """Keep what is shown, the whole page, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def certificate(directory: Path, *names: str) -> tuple[Path, Path]:
    """Make a certificate for `names` that nobody vouches for; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def trusting(certificate_file: Path) -> str:
    """Return the argument that lets Chromium take a certificate as if somebody vouched for it."""
    public_key = x509.load_pem_x509_certificate(certificate_file.read_bytes()).public_key()
    described = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(described).digest()).decode()}"


class HttpsSite:
    """`app` at `https://NAME:PORT`, served by a thread; a context manager. The port is known before it starts."""

    def __init__(self, name: str, files: tuple[Path, Path]) -> None:
        self.port = free_port()
        self.url = f"https://{name}:{self.port}"
        self.app: ASGIApp | None = None
        self._files = files

    def __enter__(self) -> Self:
        assert self.app is not None, "give it an app first"
        certificate_file, key_file = self._files
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=self.port,
            ssl_certfile=certificate_file,
            ssl_keyfile=key_file,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started, f"a site at {self.url}", within=_START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()


def fits(page: Page) -> None:
    """Nothing is wider than the screen, and what one must hit with a finger is large enough."""
    width, shown = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= shown
    fields = "input:not([type=hidden], [type=checkbox], [type=radio])"
    for control in page.locator(f":is(button, .check, textarea, {fields}):visible").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 44, control


CONTRASTS = """() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgb(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own && element.tagName !== "INPUT") continue;
    const two = [luminance(rgb(getComputedStyle(element).color)), luminance(ground(element))];
    const contrast = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    if (contrast < 4.5) poor.push([element.outerHTML.slice(0, 80), contrast]);
  }
  return poor;
}"""
"""Elements whose text is closer to its ground than WCAG AA lets it be."""
