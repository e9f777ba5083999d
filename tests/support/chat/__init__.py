"""MCP clients and servers on standard input and output, and what is said between them."""
