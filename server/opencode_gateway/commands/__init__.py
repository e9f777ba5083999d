"""The commands of `opencode-gateway`: each a click command in the module of its name."""
