"""A person on one machine, without a gateway, decides in a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.chat.mcp_client import SERVER_COMMAND
from support.gateway.browser import chromium, screenshot
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from support.opencodes.driven import Driven


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.generations(1)
def test_one_person_on_one_machine_decides_in_a_browser(laptop: Driven, browser: Browser, tmp_path: Path) -> None:
    session = laptop.create("Fix the login")
    laptop.post(session, "[BASH:echo in-the-browser]")
    environment = {
        "PATH": os.environ["PATH"],
        "RELAY_REGISTRY_DIR": str(laptop.registry),
        "RELAY_STATE_DIR": str(tmp_path / "state"),
    }
    command = [str(SERVER_COMMAND), "--page"]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as serving:
        assert serving.stdout is not None
        link = serving.stdout.readline().rpartition(" ")[2].strip()
        page = browser.new_page()
        page.goto(link)
        page.get_by_role("link", name=re.compile("echo in-the-browser")).click()
        screenshot(page, "local-ask")
        page.get_by_role("button", name=re.compile("once", re.IGNORECASE)).click()
        page.wait_for_url("**/inbox*")
        eventually(lambda: session not in laptop.running(), "the turn is over", within=60)
        expect(page.get_by_text("was allowed once")).to_be_visible()
        # The inbox holds a stream open, which keeps nobody from ending it.
        serving.send_signal(signal.SIGINT)
        _, said = serving.communicate(timeout=30)
    assert (serving.returncode, said) == (0, "")
