"""The pages for one person on one machine, without a gateway: `opencode-mcp --page`."""
