"""What the line's command line comes to, by ssh's own word."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from opencode_connected.line.command import LineSettings, ssh_argv

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "compression"),
    [
        ("", "yes"),
        ("-o Compression=no", "no"),
        ("-oCompression=no", "no"),
        ("-F {config}", "yes"),
    ],
)
def test_what_is_sent_is_compressed_unless_the_command_says_otherwise(
    words: str, compression: str, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("Compression no\n")
    command = f"ssh -F none {words.format(config=config)} ann@relay.test"

    ssh, *argv = ssh_argv(LineSettings(command, "", (), 4096, "0" * 32), 0, "0" * 32)[:-1]
    shown = subprocess.run([ssh, "-G", *argv], capture_output=True, text=True, check=True).stdout

    assert f"compression {compression}\n" in shown
