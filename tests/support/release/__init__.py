"""What `make release` builds, and how: run by `python -m support.release`."""
