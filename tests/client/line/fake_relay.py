"""In ssh's place: a relay that says whatever its argument tells it to. Run as `python fake_relay.py WHAT …`."""

from __future__ import annotations

import sys
import time

READY = b'{"type":"ready","v":1,"agent":"fake"}\n'
PORT = b"Allocated port 10001 for remote forward to 127.0.0.1:%d\n"
REFUSED = b"Warning: remote port forwarding failed for listen port %d\n"
BAD_PORT = b'{"type":"error","code":"bad-port","message":"port 10001 carries another instance"}\n'


def answer(what: str, line: bytes, port: str) -> None:
    """Answer a message of the launcher's, if at all."""
    out = sys.stdout.buffer
    if what == "one-bad-port" and b'"hello"' in line:
        out.write(BAD_PORT if port == "10001" else b'{"type":"registered","name":"laptop-api","health":"ok"}\n')
    elif what == "beats" and b'"ping"' in line:  # as late as if it had waited behind data
        for number in [0] * 20 + [1]:
            out.write(b'{"type":"pong","n":%d,"health":"failed"}\n' % number)
            out.flush()
            time.sleep(0.1)
    elif what == "sometimes-ok" and b'"ping"' in line:  # every second time
        number = int(line.rpartition(b":")[2].strip(b"}\n"))
        out.write(b'{"type":"pong","n":%d,"health":"%s"}\n' % (number, b"failed" if number % 2 else b"ok"))
    out.flush()


def main() -> None:
    """Speak, then be silent until the launcher ends."""
    what = sys.argv[1]
    forward = next(word for word in sys.argv if word.startswith("127.0.0.1:"))
    _, port, _, local_port = forward.split(":")
    if port == "0":
        sys.stderr.buffer.write(PORT % int(local_port))
    elif what == "no-forward":
        sys.stderr.buffer.write(REFUSED % int(port))
    sys.stderr.flush()
    out = sys.stdout.buffer
    if what == "noise":
        out.write(
            b"\x1b[2JWelcome!\n"
            + b"\xff\x00" * 5000
            + b"\n"
            + b"[" * 100_000
            + b"\n"
            + b"x" * 1_000_000
            + b"\n"
            + READY
        )
    elif what == "glued":
        out.write(b"\x1b]0;vm\x07 Welcome!" + READY)
    elif what == "version":
        out.write(b'{"type":"ready","v":2,"agent":"fake"}\n')
    elif what in ("flood", "endless"):
        out.write(READY)
        while True:
            out.write(b'{"type":"pong","n":1,"health":"ok"}\n' if what == "flood" else b"x" * 65536)
            out.flush()
    elif what == "evil-name":
        out.write(READY + b'{"type":"registered","name":"../evil","health":"ok"}\n')
    elif what == "ended":
        sys.exit(3)
    else:  # "silent": ready, and not a word more
        out.write(READY)
    out.flush()
    for line in sys.stdin.buffer:
        answer(what, line, port)


main()
