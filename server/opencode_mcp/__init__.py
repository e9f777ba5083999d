"""The MCP server: drives OpenCode instances through their registrations."""
