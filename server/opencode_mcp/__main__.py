"""`python -m opencode_mcp`."""

from opencode_mcp.cli import main

main()
