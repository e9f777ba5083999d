"""The command `opencode-mcp`: an MCP server on standard input and output, or pages for a browser."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = """\
MCP server (stdio) that drives the OpenCode instances registered in RELAY_REGISTRY_DIR; with --page, pages on which
a person sees what needs them and decides it, on this machine alone.
Settings come from the environment: RELAY_REGISTRY_DIR, DISCOVERY_INTERVAL_MS, HEALTH_CHECK_TIMEOUT_MS, TRANSPORT,
SEND_TIMEOUT_MS, RELAY_CREDENTIALS_FILE, RELAY_PORT_RANGE, RELAY_STATE_DIR, RELAY_JOURNAL_DAYS, RELAY_CALLERS,
RELAY_UPLOADS_DIR, RELAY_UPLOADS_URL, LOG_LEVEL; the README describes each."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def main(relay_json: Path | None = None) -> int:
    """Run the server until its client closes standard input; return the exit code: 0, or 2 for bad settings.

    With `--page` it serves pages instead, until Ctrl-C.
    `relay_json`: where a provisioned relay has its settings, if not in their one place; for tests.
    """
    release = version("opencode-relay")
    parser = argparse.ArgumentParser(
        "opencode-mcp", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=release)
    parser.add_argument(
        "--page", action="store_true", help="serve pages for a browser on this machine instead, and print the link"
    )
    is_page = parser.parse_args().page
    try:
        import anyio
        import mcp  # noqa: F401 - only whether it is there

        if is_page:
            import jinja2  # noqa: F401 - the same
    except ImportError as missing:
        return _fail(
            f"{missing.name} is not installed: the server needs its extra. In a clone of opencode-relay: "
            "pipx install --force '.[server]'"
        )

    from opencode_fleet.errors import SettingsError
    from opencode_fleet.provisioned import RELAY_JSON
    from opencode_fleet.settings import load_settings
    from opencode_fleet.transports import TRANSPORTS
    from opencode_mcp.server import build_server
    from opencode_mcp.standard_input import mend_standard_input

    level = os.environ.get("LOG_LEVEL", "").strip() or "WARNING"
    if level.upper() not in LOG_LEVELS:
        return _fail(f"LOG_LEVEL is {level[:80]!r}; it must be one of: {', '.join(LOG_LEVELS)}")
    # Standard output is the protocol's.
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = load_settings(os.environ, TRANSPORTS, relay_json or RELAY_JSON)
    except SettingsError as error:
        return _fail(str(error))
    transport = TRANSPORTS[settings.transport](settings)
    if is_page:
        from opencode_mcp.page.serving import serve

        with suppress(KeyboardInterrupt):
            anyio.run(serve, settings, transport)
        return 0
    server = build_server(settings, transport, release)
    # The thread that reads standard input would hold up a tidy end, and the first process of a container is deaf to
    # signals that it does not handle. There is nothing to tidy: what runs, runs in OpenCode.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: os._exit(128 + got))
    mend_standard_input()
    anyio.run(server.run_stdio_async)
    return 0


def _fail(message: str) -> int:
    print(f"opencode-mcp: {message}", file=sys.stderr)
    return 2
