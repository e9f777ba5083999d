"""`opencode-gateway notify`, and the gateway's own sender."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from opencode_gateway import telling
from opencode_gateway.cli import cli
from opencode_gateway.errors import CommandRefused
from opencode_notify.browsers import KEY_FILE
from opencode_notify.notice import Receipt
from opencode_notify.outlets.webhook import new_secret
from opencode_notify.rules import load_people
from opencode_pages.parts import Subscription, ToldAsk, Unavailable, Visitor
from support.pages.fake_outlet import FakeOutlet, told
from support.pages.fake_receiver import receiver
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from click.testing import Result

    from notify.conftest import Told
    from opencode_pages.parts import Pushes

URL = "https://relay.example.org"
SETTINGS = json.dumps({"url": "https://push.example.org/secret"})


class Owner:
    """Runs commands as somebody at the relay does."""

    def __init__(self, ann: Told, tmp_path: Path) -> None:
        self._config = tmp_path / "gateway.json"
        self._config.write_text(json.dumps({"public_url": URL, "data_dir": str(tmp_path)}))
        self._environ = {"RELAY_STATE_DIR": str(ann.directory)}

    def runs(self, *arguments: str, types: str = "") -> Result:
        words = ["--config", str(self._config), "notify", *arguments]
        done = CliRunner().invoke(cli, words, input=types, env=self._environ)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "secret" not in done.output
        return done


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, ann: Told) -> list[Receipt]:
    """What the outlets say next."""
    found: list[Receipt] = []

    def outlet_of(settings: dict[str, Any]) -> FakeOutlet:
        if settings["kind"] != "fake":
            raise ValueError("there is no such kind: write fake")
        return FakeOutlet(ann.file, settings.get("address", ""), found)

    monkeypatch.setattr(telling, "_outlet_of", outlet_of)
    return found


@pytest.fixture
def owner(ann: Told, tmp_path: Path, answers: list[Receipt]) -> Owner:
    """The owner of a gateway beside ann's journal."""
    del answers
    return Owner(ann, tmp_path)


def test_an_outlet_is_added_from_standard_input_listed_without_its_address_and_removed(
    ann: Told, owner: Owner
) -> None:
    added = owner.runs("add", "ben", "mail", "--kind", "fake", types=SETTINGS + "\n")
    assert (added.exit_code, stat.S_IMODE(ann.path.stat().st_mode)) == (0, 0o600)
    assert json.loads(ann.path.read_text())["ben"]["outlets"][0]["url"] == "https://push.example.org/secret"
    assert {"person": "ben", "outlet": "mail", "kind": "fake"} in json.loads(owner.runs("list", "--json").stdout)
    owner.runs("add", "ben", "mail", "--kind", "fake", types='{"url": "https://other.example.org"}\n')
    assert len(json.loads(ann.path.read_text())["ben"]["outlets"]) == 1
    assert owner.runs("remove", "ben", "mail").exit_code == 0
    assert "ben has no outlet mail" in owner.runs("remove", "ben", "mail").stderr


@pytest.mark.parametrize(
    ("kind", "types", "words"),
    [
        ("fake", "https://push.example.org/secret\n", "no JSON object"),
        ("fake", "", "nothing came on standard input"),
        ("pigeon", SETTINGS + "\n", "there is no such kind"),
    ],
)
def test_what_is_no_outlet_is_refused_in_a_line_and_nothing_changes(
    ann: Told, owner: Owner, kind: str, types: str, words: str
) -> None:
    before = ann.path.read_bytes()
    done = owner.runs("add", "ann", "mail", "--kind", kind, types=types)
    assert done.exit_code == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert ann.path.read_bytes() == before


def test_a_file_that_others_may_read_is_refused(ann: Told, owner: Owner) -> None:
    ann.path.chmod(0o644)
    assert "it is open to others: `chmod 600" in owner.runs("list").stderr


def test_an_outlet_is_tried_and_says_why_it_fails(owner: Owner, answers: list[Receipt], ann: Told) -> None:
    assert "phone accepted it" in owner.runs("test", "ann", "phone").stdout
    answers.append(Receipt.of_failure("the server is away", retry=True))
    assert "phone did not take it: the server is away" in owner.runs("test", "ann", "phone").stderr
    assert len(told(ann.file)) == 2


def test_a_secret_that_nobody_can_guess_is_made_and_told_once(
    ann: Told, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # these are the real kinds
    topic = owner.runs("add", "ben", "phone", "--kind", "ntfy", types="{}\n").stdout.split(": ")[1].split()[0]
    added = owner.runs("add", "ben", "hook", "--kind", "webhook", types='{"url": "https://push.example.org/"}\n')
    (made,) = re.findall(r"whsec_\S+", added.stdout)
    phone, hook = json.loads(ann.path.read_text())["ben"]["outlets"]
    assert (phone["topic"], hook["secret"]) == (topic, made)
    assert len(topic) > 24
    owner.runs("add", "ben", "phone", "--kind", "ntfy", types='{"topic": "my-own"}\n')
    assert json.loads(ann.path.read_text())["ben"]["outlets"][0]["topic"] == "my-own"


def test_rules_are_shown_changed_and_set_back(ann: Told, owner: Owner) -> None:
    changes = ("events=permission,answer", "quiet=22:00-07:00 Europe/Berlin", "escalate_after_minutes=none")
    shown = owner.runs("rules", "ann", *changes, "grouping_seconds=0", "show_command=true").stdout
    assert "22:00-07:00 Europe/Berlin" in shown
    assert "permission,answer" in shown
    assert json.loads(ann.path.read_text())["ann"]["rules"] == {
        "events": ["permission", "answer"],
        "quiet": {"from": "22:00:00", "until": "07:00:00", "zone": "Europe/Berlin"},
        "grouping_seconds": 0,
        "escalate_after_minutes": None,
        "show_command": True,
    }
    owner.runs("rules", "ann", "events=", "quiet=none", "escalate_after_minutes=", "grouping_seconds=")
    assert json.loads(ann.path.read_text())["ann"]["rules"] == {"show_command": True}
    assert load_people(ann.path)["ann"].outlet("phone") is not None
    before = ann.path.read_bytes()
    assert json.loads(owner.runs("rules", "ann", "--json").stdout)["grouping_seconds"] == 30
    assert ann.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("loud=true", "loud is no rule: write RULE=VALUE, of events,"),
        ("quiet", "quiet is no rule"),
        ("quiet=at night", "write it as '22:00-07:00 Europe/Berlin'"),
        ("quiet=22:00-07:00 Mars/Crater", "no time zone has this name"),
        ("events=all", "events"),
        ("grouping_seconds=-1", "grouping_seconds"),
    ],
)
def test_a_wrong_rule_changes_nothing(ann: Told, owner: Owner, change: str, words: str) -> None:
    before = ann.path.read_bytes()
    done = owner.runs("rules", "ann", "show_title=true", change)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert words in done.stderr
    assert ann.path.read_bytes() == before
    assert "ben has no outlet yet" in owner.runs("rules", "ben").stderr


async def test_status_says_how_far_a_message_came_and_which_outlet_is_off(ann: Told, owner: Owner) -> None:
    ann.rules("phone", "mail")
    ann.answers["phone"] = [Receipt.of_failure("it has ended", gone=True)]
    ann.fleet.asks("laptop-app", "per_1")
    await ann.goes_on()
    shown = owner.runs("status").stdout
    assert "switched off" in shown
    assert "it has ended" in shown
    found = json.loads(owner.runs("status", "--json").stdout)
    assert {each["outlet"]: each["state"] for each in found["deliveries"]} == {"phone": "failed", "mail": "sent"}


def test_without_the_package_of_outlets_a_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_OUTLETS", "opencode_notify.no_outlets")
    with pytest.raises(CommandRefused, match="this version has no outlets"):
        telling.made_outlet({"name": "phone", "kind": "ntfy"})


async def test_the_gateway_tells_people_while_it_runs(ann: Told, owner: Owner, tmp_path: Path) -> None:
    del owner
    async with telling.Telling(tmp_path, {}, {"RELAY_STATE_DIR": str(ann.directory)}, URL).running():
        ann.fleet.asks("laptop-app", "per_1")
        await eventually_async(lambda: len(told(ann.file)) == 1)


async def test_the_gateway_sends_by_the_outlets_that_it_has(ann: Told, tmp_path: Path) -> None:
    async with receiver(tmp_path) as server:
        url = f"http://localhost:{server.ports['http']}/hook"
        outlet = {"name": "phone", "kind": "webhook", "url": url, "secret": new_secret(), "allow_private": True}
        ann.path.write_text(json.dumps({"ann": {"outlets": [outlet]}}))
        async with telling.Telling(tmp_path, {}, {"RELAY_STATE_DIR": str(ann.directory)}, URL).running():
            ann.fleet.asks("laptop-app", "per_1")
            await eventually_async(lambda: len(server.got) == 1)
        told_ = json.loads(server.got[0].body)
        assert "laptop-app" in told_["title"] + told_["body"]
        assert server.got[0].headers["webhook-id"] == told_["id"]


async def test_pages_lead_from_a_message_to_its_ask_and_have_browsers_told(
    ann: Told, owner: Owner, tmp_path: Path
) -> None:
    del owner
    found = telling.Telling(tmp_path, {}, {"RELAY_STATE_DIR": str(ann.directory)}, URL, has_pages=True)
    visitor = Visitor("ann", "Ann", frozenset({"approve"}))
    assert await found.opened(visitor, "0" * 20) is None
    async with found.running():
        ann.fleet.asks("laptop-app", "per_1")
        await eventually_async(lambda: len(told(ann.file)) == 1)
        [notice] = told(ann.file)
        assert notice["url"] == f"{URL}/told/{notice['id']}"
        assert await found.opened(visitor, notice["id"]) == ToldAsk("laptop-app", "per_1")
        assert await found.opened(Visitor("ben", "Ben", frozenset({"approve"})), notice["id"]) is None
        await found.shown(notice["id"])
    pushes: Pushes | None = found.pushes()
    assert pushes is not None
    with pytest.raises(Unavailable, match="no subscription that can be used"):
        await pushes.add(visitor, Subscription("https://127.0.0.1/", "", ""), "phone")
    await pushes.remove(visitor, "https://127.0.0.1/")
    ann.path.chmod(0o644)
    with pytest.raises(Unavailable) as refused:
        await pushes.remove(visitor, "https://127.0.0.1/")
    assert str(tmp_path) not in str(refused.value)
    (tmp_path / KEY_FILE).write_text("no key")
    assert found.pushes() is None


async def test_where_no_journal_can_be_had_the_gateway_serves_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("no directory")
    async with telling.Telling(tmp_path, {}, {"RELAY_STATE_DIR": str(tmp_path / "state")}, URL).running():
        assert "nobody is told what needs them" in caplog.text
