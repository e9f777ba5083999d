"""MCP clients that people have, as they come from npm and PyPI, and the gateway that they connect to."""
