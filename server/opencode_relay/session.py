"""What sshd runs for every connection of a client: it hands the connection to the agent, and waits for its end.

    python -ISE session.py CLIENT FINGERPRINT SOCKET

is the forced command of a client's line in authorized_keys, so the arguments are sshd's word. The agent gets this
process's standard input and output; what stays is a shell that waits for the agent to close the socket, at 0.2 MB
where an ordinary Python process keeps 9. Nothing is imported that is not needed: this runs in every handshake.
If the agent dies, so does the shell, and with it the session: no client holds on to a relay that does not know it.
"""

import os
import sys

# Not `socket` (nor `array` or `struct`): what they import would double the time to start.
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

_STDIN_AND_STDOUT = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in (0, 1))  # as C's int[2]
_NO_AGENT = (
    b'{"type":"error","code":"write-failed","message":'
    b'"the agent of this relay is not running: its administrator should look at opencode-relay-agent.service"}\n'
)


def main(client: str, fingerprint: str, path: str) -> None:
    """Become the shell; returns only if there is no agent."""
    agent = socket(AF_UNIX, SOCK_STREAM)
    header = "\0".join((client, fingerprint, os.environ.get("SSH_CONNECTION", "")))
    try:
        agent.connect(path)
        agent.sendmsg([header.encode()], [(SOL_SOCKET, SCM_RIGHTS, _STDIN_AND_STDOUT)])
    except OSError:
        os.write(1, _NO_AGENT)
        return
    # Of the session only stderr is kept, to which nothing is written.
    os.dup2(agent.fileno(), 0)
    os.dup2(2, 1)
    # The words at its end are for whoever looks at the process table, above all the one who revokes a key.
    os.execve("/bin/sh", ["sh", "-c", "read -r _", "opencode-relay-session", client, fingerprint], {})  # noqa: S606 # it is a shell


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.exit(1)
