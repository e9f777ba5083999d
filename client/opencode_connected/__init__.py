"""The launcher: OpenCode in the foreground, its line to the relay in the background."""
