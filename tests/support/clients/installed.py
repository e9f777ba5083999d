"""The clients and their versions. Each is installed by the first test that needs it, and stays below `.work`.

Together they take about 1.2 GB and a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.project.npm import install_from_npm, install_from_pypi, install_node

TYPESCRIPT_SDK1 = "1.32.2"
TYPESCRIPT_SDK2 = "2.4.0"
PYTHON_SDK1 = "1.30.0"
FASTMCP3 = "3.4.11"
MCP_REMOTE = "0.15.1"
INSPECTOR = "2.12.0"
CLAUDE_CODE = "2.1.332"
CODEX = "0.171.0"

PROGRAMS = Path(__file__).with_name("programs")
"""Clients of our own on the SDKs."""


def typescript_sdk(generation: int) -> tuple[Path, Path]:
    """Return Node, and the directory in which it finds the SDK."""
    package, version = {
        1: ("@modelcontextprotocol/sdk", TYPESCRIPT_SDK1),
        2: ("@modelcontextprotocol/client", TYPESCRIPT_SDK2),
    }[generation]
    return install_node(), install_from_npm(package, version, name=f"clients/typescript-sdk{generation}")


def python1() -> Path:
    """Return a Python with `mcp` 1.x and FastMCP 3.x, which is built on it."""
    return install_from_pypi(f"mcp=={PYTHON_SDK1}", f"fastmcp=={FASTMCP3}", name="clients/python1")


def python2() -> Path:
    """Return a Python with `mcp` 2.x and FastMCP 4.x: the one that runs the tests."""
    return Path(sys.executable)


def mcp_remote() -> list[str]:
    """Return the command of mcp-remote."""
    modules = install_from_npm("mcp-remote", MCP_REMOTE, name="clients/mcp-remote")
    return [str(install_node()), str(modules / "mcp-remote" / "dist" / "proxy.js")]


def inspector() -> list[str]:
    """Return the command of the MCP Inspector."""
    package = "@modelcontextprotocol/inspector"
    modules = install_from_npm(package, INSPECTOR, name="clients/inspector")
    return [str(install_node()), str(modules / package / "clients" / "launcher" / "build" / "index.js")]


def claude_code() -> Path:
    """Return the program of Claude Code."""
    package = "@anthropic-ai/claude-code-linux-x64"
    return install_from_npm(package, CLAUDE_CODE, name="clients/claude-code") / package / "claude"


def codex() -> Path:
    """Return the program of Codex."""
    modules = install_from_npm("@openai/codex", f"{CODEX}-linux-x64", name="clients/codex")
    return next((modules / "@openai" / "codex" / "vendor").glob("*/bin/codex"))
