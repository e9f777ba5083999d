"""The fleet: agents on other machines as they are found, watched and driven. It knows nothing of MCP."""
