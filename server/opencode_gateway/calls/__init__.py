"""What happens to a tool call: who may make it, which child runs it, what is written down of it."""
