"""How OpenCode 1 and 2 are found, started or attached, and whose port it is."""
