"""The authorization server for people who log in at the gateway itself."""
