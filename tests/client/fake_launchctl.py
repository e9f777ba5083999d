"""A fake of macOS' `launchctl` for one agent: what it is loaded with really runs. Its state is a file beside it.

launchctl print|enable|bootout gui/UID/LABEL        launchctl bootstrap gui/UID FILE
"""

from __future__ import annotations

import json
import os
import plistlib
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATE = Path(__file__).with_name("launchd.json")
_NOT_FOUND = 113


def main(verb: str, target: str, file: str = "") -> int:
    """Do what launchd would."""
    state: dict[str, Any] = json.loads(_STATE.read_text()) if _STATE.exists() else {"asked": [], "pid": None}
    state["asked"].append([verb, target, *([file] if file else [])])
    code = _NOT_FOUND if verb in ("print", "bootout") and state["pid"] is None else 0
    if verb == "print" and code == 0:
        print(f"{target} = {{\n\tpath = {state['path']}\n\tstate = running\n\tpid = {state['pid']}\n}}")
    if verb == "bootstrap":
        agent = plistlib.loads(Path(file).read_bytes())
        assert target == f"gui/{os.getuid()}"
        program = subprocess.Popen(
            agent["ProgramArguments"],
            cwd=agent["WorkingDirectory"],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        state |= {"pid": program.pid, "path": file}
    if verb == "bootout" and code == 0:
        with suppress(ProcessLookupError):
            os.killpg(state["pid"], signal.SIGTERM)
        state["pid"] = None
    _STATE.write_text(json.dumps(state))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
