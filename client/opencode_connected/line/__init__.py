"""The line: one ssh connection per instance that carries the tunnel and the registration."""
