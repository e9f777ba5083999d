"""The line between a machine and its relay: sshd, network namespaces, bare lines, and lines that break."""
