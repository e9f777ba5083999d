"""In ssh's place: a relay that says whatever its argument tells it to. Run as `python fake_relay.py WHAT …`."""

from __future__ import annotations

import sys

READY = b'{"type":"ready","v":1,"agent":"fake"}\n'
PORT = b"Allocated port 10001 for remote forward to 127.0.0.1:%d\n"


def main() -> None:
    """Speak, then be silent until the launcher ends."""
    what = sys.argv[1]
    local_port = int(next(word for word in sys.argv if word.startswith("127.0.0.1:0:")).rpartition(":")[2])
    sys.stderr.buffer.write(PORT % local_port)
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
    for _ in sys.stdin.buffer:
        pass


main()
