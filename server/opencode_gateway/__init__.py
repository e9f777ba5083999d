"""The relay's door for chat clients: OAuth, capabilities and an audit log in front of stdio MCP servers."""
