"""The gateway in this process or its own, with clients, browsers, and identity providers for it."""
