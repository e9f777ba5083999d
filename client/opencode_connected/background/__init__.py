"""The launcher as a service of the person: systemd's user manager or launchd keeps it running."""
