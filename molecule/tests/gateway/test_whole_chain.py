"""From a chat client by https to OpenCode's screen in somebody's terminal and back, through everything in between.

The tests follow one another as a relay's days do: one person logs in once, and whatever happens to the relay after
that, the same token goes on and no message arrives twice.
"""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from opencode_notify.outlets.webhook import new_secret
from support.hosts.chain import CONTAINER, Model, Phone, Terminal, answer, ask, begin, other_image
from support.hosts.hosts import Host, RunningProgram
from support.hosts.scenario import BACK_WITHIN, play
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import Machine, ScenarioRelay

pytestmark = pytest.mark.timeout(600)

_HOOK_PORT = 4600
"""Of the host that is told; nothing else listens there."""
_LOGIN = ("ann", "correct horse battery staple")


@dataclass(frozen=True)
class Chain:
    """The whole of it. `instance`: the name of what runs in the terminal. `session`: what its screen shows."""

    relay: ScenarioRelay
    gateway: ScenarioGateway
    phone: Phone
    terminal: Terminal
    model: Model
    instance: str
    session: str
    tokens: dict[str, Any]

    def begin(self, chat: RunningProgram, word: str) -> int:
        """Send a prompt; its answer has begun to stream to the chat, and is not over."""
        heard = begin(chat, "send", instance=self.instance, session=self.session, message=f"{word} GATE:{word} end")
        chat.wait_for(lambda line: f"echo: {word}" in line, "the answer as progress", after=heard, within=90)
        eventually(lambda: f"GATE:{word}" in self.terminal.screen, "the prompt on the screen", within=30)
        return heard

    def goes_on(self, word: str, before: str = "the-first") -> None:
        """Assert that a prompt goes through from end to end, once, with the same token and without any login.

        `before`: a word of an earlier prompt, which must have been answered once.
        """
        with self.phone.chat() as chat:
            read = ask(chat, "read", instance=self.instance, session=self.session)
            assert read["text"].count(f"echo: {before}") == 1
            heard = self.begin(chat, word)
            assert not any(line.startswith('{"answer"') for line in chat.lines[heard:])
            self.model.release(word)
            assert answer(chat, after=heard)["structured"]["result"] == "done"
        assert self.model.times_prompted(f"GATE:{word}") == 1
        assert self.phone.tokens() == self.tokens

    def survives(self, word: str, happens: Callable[[], object]) -> None:
        """Assert that a prompt whose answer streams while something happens is not sent again, and all goes on."""
        with self.phone.chat() as chat:
            self.begin(chat, word)
            happens()
            self.gateway.wait_until_it_serves()
        self.model.release(word)
        eventually(lambda: self.instance in self.relay.registrations(), "it is registered", within=BACK_WITHIN)
        self.goes_on(f"after-{word}", before=word)
        assert self.model.times_prompted(f"GATE:{word}") == 1


@pytest.fixture(scope="module")
def terminal(relay: ScenarioRelay, desktop: Machine) -> Iterator[tuple[Terminal, str]]:
    """A person's terminal, and the name under which what runs there is registered."""
    desktop.host.run("apt-get", "install", "--yes", "--no-install-recommends", "tmux")
    asks = json.dumps({"permission": {"bash": "ask"}})
    desktop.host.run("tee", f"/home/{desktop.person}/site/opencode.json", stdin=asks, user=desktop.person)
    before = relay.registered(desktop.client).keys()
    terminal = Terminal(desktop)
    with terminal.open(f"/home/{desktop.person}/site"):
        found = eventually(lambda: relay.registered(desktop.client).keys() - before, "it is registered", within=90)
        name = found.pop()
        yield terminal, name
    eventually(lambda: name not in relay.registrations(), "who closed the terminal is off the list", within=30)


@pytest.fixture(scope="module")
def chain(
    relay: ScenarioRelay,
    gateway: ScenarioGateway,
    desktop: Machine,
    terminal: tuple[Terminal, str],
) -> Chain:
    """All of it, after one person has logged in once and one message has arrived."""
    screen, instance = terminal
    phone = Phone(desktop.host, gateway)
    model = Model(desktop.host, desktop.model_port)
    gateway.administer("users", "add", _LOGIN[0], stdin=f"{_LOGIN[1]}\n")
    gateway.administer("clients", "allow", "--minutes", "5")
    # A session from afar takes nobody's screen, so the person there begins the one that both work in.
    screen.type("at-the-desk")
    eventually(lambda: "echo: at-the-desk" in screen.screen, "its answer on the screen", within=60)

    def is_idle() -> bool:
        rows = phone.call("instances", *_LOGIN)["structured"]["instances"]
        return [row["state"] for row in rows if row["name"] == instance] == ["idle"]

    eventually(is_idle, "it is idle", within=60)
    sent = phone.call("send", *_LOGIN, instance=instance, message="the-first")
    assert "echo: the-first" in sent["text"]
    gateway.administer("clients", "close")
    return Chain(relay, gateway, phone, screen, model, instance, sent["structured"]["session"], phone.tokens())


def test_a_prompt_shows_in_the_terminal_and_its_answer_streams_to_the_chat_client(chain: Chain) -> None:
    assert chain.model.times_prompted("the-first") == 1
    chain.goes_on("first")


def test_the_journal_says_who_called_what_and_not_what_was_said(chain: Chain) -> None:
    lines = chain.relay.output("journalctl", "--boot", "--output", "cat", "--unit", "opencode-gateway.service")
    calls = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    sent = [call for call in calls if call.get("tool") == "send"]
    assert {(call["login"], call["instance"], call["outcome"]) for call in sent} == {("ann", chain.instance, "ok")}
    assert "the-first" not in lines


def test_it_goes_on_after_a_restart_of_the_gateway(chain: Chain) -> None:
    chain.survives("restarted", lambda: chain.relay.run("systemctl", "restart", "opencode-gateway.service"))


def test_it_goes_on_after_the_server_behind_the_gateway_was_killed(chain: Chain) -> None:
    def kill() -> None:
        found = chain.relay.output("docker", "top", CONTAINER, "-eo", "pid,args")
        (pid,) = (line.split()[0] for line in found.splitlines() if line.endswith("/opencode-mcp"))
        chain.relay.run("kill", "-KILL", pid)

    chain.survives("killed", kill)


@pytest.fixture(scope="module")
def elsewhere(hosts: dict[str, dict[str, Any]]) -> Host:
    """A host that is neither the relay nor the person's own."""
    return Host(str(hosts["spare"]["inventory_hostname"]))


@contextmanager
def webhook(host: Host) -> Iterator[RunningProgram]:
    """A receiver of messages on some host; what it takes are the lines that it prints."""
    env = {"PYTHONPATH": "/opt/tests", "PYTHONDONTWRITEBYTECODE": "1"}
    with RunningProgram(host, "python3", "-m", "support.pages.fake_webhook", str(_HOOK_PORT), env=env) as hook:
        yield hook


def told_of(hook: RunningProgram, within: float) -> dict[str, Any]:
    """Wait until the receiver is told of an ask; return the message."""
    asks = '"title": .* asks for a shell command'
    number = hook.wait_for(lambda line: re.search(asks, line) is not None, "the message", within=within)
    return dict(json.loads(hook.lines[number]))


def decided_on_its_page(chain: Chain, told: dict[str, Any], word: str) -> None:
    """Decide what a message told of on its page, and see that the screen at the desk goes on with it."""
    assert told["url"].startswith(f"https://{chain.gateway.domain}/told/")
    decided = chain.phone.decide(told["url"], "once", *_LOGIN)
    assert f"echo {word}" in decided["shown"]
    assert (decided["status"], decided["location"].partition("?")[0]) == (303, "/inbox")
    eventually(lambda: f"done. result: {word}" in chain.terminal.screen, "its end on the screen", within=60)
    assert "Permission required" not in chain.terminal.screen


def test_an_ask_is_told_elsewhere_and_decided_on_its_page(chain: Chain, elsewhere: Host) -> None:
    url = f"http://{elsewhere.address()}:{_HOOK_PORT}/"
    settings = {"url": url, "secret": new_secret(), "allow_private": True}
    chain.gateway.administer("notify", "add", "ann", "hook", "--kind", "webhook", stdin=json.dumps(settings) + "\n")
    with webhook(elsewhere) as hook:
        chain.terminal.type("[BASH:echo told-and-decided]")
        decided_on_its_page(chain, told_of(hook, 30), "told-and-decided")


def test_an_ask_that_nobody_could_be_told_of_is_told_after_a_reboot_of_the_relay(
    chain: Chain, elsewhere: Host
) -> None:
    chain.terminal.type("[BASH:echo told-after-all]")
    eventually(lambda: "Permission required" in chain.terminal.screen, "it asks", within=60)
    chain.relay.reboot()
    chain.gateway.wait_until_it_serves()
    with webhook(elsewhere) as hook:
        decided_on_its_page(chain, told_of(hook, 180), "told-after-all")


def test_it_goes_on_after_the_relay_was_rebooted(chain: Chain) -> None:
    chain.survives("rebooted", chain.relay.reboot)


def test_it_goes_on_after_an_upgrade_of_the_image(chain: Chain, tmp_path: Path) -> None:
    archive = tmp_path / "other.tar"
    other_image(archive, uuid.uuid4().hex)
    before = chain.gateway.inspect()["Image"]

    def upgrade() -> None:
        played = play("relay.yml", "--tags", "relay_gateway", "--extra-vars", f"relay_gateway_archive={archive}")
        assert played.succeeded, played.said

    chain.survives("upgraded", upgrade)
    assert chain.gateway.inspect()["Image"] != before
    # Nothing of the one before takes up room.
    assert len(set(chain.relay.output("docker", "images", "--no-trunc", "--quiet").split())) == 1
