"""Who may log in: the file of users, passwords and one-time codes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import unicodedata
from typing import TYPE_CHECKING

import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import CHEAPEST, RFC_9106_LOW_MEMORY

from opencode_gateway.errors import CommandRefused, ConfigError
from opencode_gateway.people.users import Users, known_as
from opencode_gateway.sign_in.one_time_codes import OneTimeCodes, app_uri, new_secret
from opencode_gateway.sign_in.passwords import HashingBusy, Passwords
from support.gateway.authorization import CHEAP_HASH, Clock

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gateway.capabilities import Capability

ALL: tuple[Capability, ...] = ("observe", "approve", "drive")
GOOD = {"password": CHEAP_HASH, "capabilities": ["drive", "observe"]}


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.json")


def write(users: Users, content: object, mode: int = 0o600) -> None:
    users.path.write_text(content if isinstance(content, str) else json.dumps(content))
    users.path.chmod(mode)


def test_who_was_added_is_there_and_the_file_is_closed_to_others(users: Users) -> None:
    assert users.load() == {}
    users.add("ann", CHEAP_HASH, ["drive", "observe"])
    ann = users.load()["ann"]
    assert (ann.name, ann.password_hash, ann.totp_secret) == ("ann", CHEAP_HASH, None)
    assert (ann.capabilities, ann.disabled) == (("observe", "drive"), False)
    assert users.path.stat().st_mode & 0o777 == 0o600
    assert json.loads(users.path.read_text())["ann"]["capabilities"] == ["observe", "drive"]
    assert CHEAP_HASH not in repr(ann)


def test_every_change_is_seen_by_a_service_that_has_the_file_loaded(users: Users) -> None:
    service = Users(users.path)
    users.add("ann", CHEAP_HASH, ALL)
    assert not service.load()["ann"].disabled
    users.set_disabled("ann", disabled=True)
    assert service.load()["ann"].disabled
    users.set_disabled("ann", disabled=False)
    secret = new_secret()
    users.set_totp("ann", secret)
    assert (service.load()["ann"].totp_secret, service.load()["ann"].disabled) == (secret, False)
    users.set_totp("ann", None)
    users.set_capabilities("ann", ["observe"])
    other = Passwords(CHEAPEST).hash("another password")
    users.set_password("ann", other)
    ann = service.load()["ann"]
    assert (ann.totp_secret, ann.capabilities, ann.password_hash) == (None, ("observe",), other)
    users.remove("ann")
    assert service.load() == {}


@pytest.mark.parametrize(
    "name", ["", "Ann", "ann smith", "-ann", "ann\n", "änn", "a" * 65, "ann/../bob", "<b>", "ann:1"]
)
def test_a_name_that_is_hard_to_type_or_to_show_is_refused(users: Users, name: str) -> None:
    with pytest.raises(CommandRefused, match="cannot be a user's name: take lower-case letters") as refused:
        users.add(name, CHEAP_HASH, ALL)
    assert "\n" not in str(refused.value)
    assert not users.path.exists()


def test_a_phone_that_begins_words_with_a_capital_means_the_same_name() -> None:
    assert known_as(" Ann ") == "ann"


def test_a_command_says_what_is_not_possible_and_changes_nothing(users: Users) -> None:
    users.add("ann", CHEAP_HASH, ALL)
    before = users.path.read_bytes()
    with pytest.raises(CommandRefused, match="ann is a user already"):
        users.add("ann", CHEAP_HASH, ["observe"])
    with pytest.raises(CommandRefused, match="there is no user 'bob'"):
        users.remove("bob")
    with pytest.raises(CommandRefused, match="there is no user 'bob'"):
        users.set_disabled("bob", disabled=True)
    with pytest.raises(CommandRefused, match="capabilities"):
        users.set_capabilities("ann", [])
    with pytest.raises(CommandRefused, match="must be an argon2id hash") as refused:
        users.set_password("ann", "a plain password")
    assert "plain" not in str(refused.value)
    with pytest.raises(CommandRefused, match="must be base32"):
        users.set_totp("ann", "not base32 but long")
    assert users.path.read_bytes() == before
    with pytest.raises(CommandRefused, match="cannot be used: No such file"):
        Users(users.path.parent / "missing" / "users.json").add("ann", CHEAP_HASH, ALL)


def test_a_renewed_hash_does_not_undo_a_password_that_was_set_meanwhile(users: Users) -> None:
    users.add("ann", CHEAP_HASH, ALL)
    renewed, other = (Passwords(CHEAPEST).hash(password) for password in ("correct horse", "another password"))
    users.set_password("ann", other)
    users.replace_hash("ann", CHEAP_HASH, renewed)
    assert users.load()["ann"].password_hash == other
    users.remove("ann")
    users.replace_hash("ann", other, renewed)
    assert users.load() == {}


def test_a_link_to_the_file_stays_one(users: Users) -> None:
    target = users.path.with_name("elsewhere.json")
    write(users, {"ann": GOOD})
    users.path.rename(target)
    users.path.symlink_to(target)
    users.set_disabled("ann", disabled=True)
    assert users.path.is_symlink()
    assert json.loads(target.read_text())["ann"]["disabled"]


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o777])
def test_a_file_that_others_may_read_or_write_lets_nobody_in(users: Users, mode: int) -> None:
    write(users, {"ann": GOOD}, mode)
    with pytest.raises(ConfigError, match="must be closed to other users: `sudo chmod 600 "):
        users.load()
    users.path.chmod(0o600)
    assert "ann" in users.load()


def test_what_is_no_regular_file_is_not_waited_for(users: Users) -> None:
    os.mkfifo(users.path, 0o600)
    with pytest.raises(ConfigError, match="it is no regular file"):
        users.load()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("{", "Invalid JSON"),
        ("[]", "an object"),
        ({"ann": {**GOOD, "capabilities": []}}, "ann.capabilities: "),
        ({"ann": {**GOOD, "capabilities": ["admin"]}}, "ann.capabilities.0: "),
        ({"ann": {**GOOD, "pasword": "secret"}}, "ann.pasword: "),
        ({"ann": {**GOOD, "password": "secret"}}, "ann.password: must be an argon2id hash"),
        ({"ann": {**GOOD, "password": CHEAP_HASH.replace("argon2id", "argon2i")}}, "must be an argon2id hash"),
        ({"ann": {**GOOD, "totp": "secret secret secret"}}, "ann.totp: must be base32"),
        ({"ann": {**GOOD, "totp": "MFRGG"}}, "ann.totp: "),
        ({"Ann": GOOD}, "Ann.[key]: "),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_says_where_in_one_line(
    users: Users, caplog: pytest.LogCaptureFixture, content: object, where: str
) -> None:
    users.add("ann", CHEAP_HASH, ALL)
    users.load()
    write(users, content)
    for _ in range(3):
        with pytest.raises(ConfigError) as wrong:
            users.load()
    assert where in str(wrong.value)
    assert "\n" not in str(wrong.value)
    assert "secret" not in str(wrong.value)
    with pytest.raises(ConfigError):
        users.add("bob", CHEAP_HASH, ALL)
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in logged] == [f"nobody can log in: {wrong.value}"]
    write(users, {"ann": GOOD})
    assert list(users.load()) == ["ann"]


def test_commands_that_run_at_the_same_time_lose_nothing(users: Users) -> None:
    program = (
        "import sys, pathlib\nfrom opencode_gateway.people.users import Users\n"
        "users = Users(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10): users.add(f'{sys.argv[2]}{n}', sys.argv[3], ['observe'])\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(users.path), name, CHEAP_HASH]) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(users.load()) == 30
    assert [path.name for path in users.path.parent.iterdir()] == ["users.json"]


def test_a_hash_is_the_low_memory_profile_of_rfc_9106_with_a_salt_of_its_own() -> None:
    first, second = (Passwords().hash("correct horse battery") for _ in range(2))
    assert extract_parameters(first) == RFC_9106_LOW_MEMORY
    assert first != second


@pytest.mark.parametrize("length", [0, 11, 1025])
def test_a_password_that_is_too_short_or_too_long_cannot_be_set(length: int) -> None:
    with pytest.raises(CommandRefused, match=f"12 to 1024 characters, this one {length}") as refused:
        Passwords(CHEAPEST).hash("x" * length)
    assert "xxx" not in str(refused.value)


async def test_the_same_password_from_another_keyboard_is_right_and_another_is_not() -> None:
    passwords = Passwords(CHEAPEST)
    composed = "pässwörd mit é"
    for length in (12, 1024):
        encoded = passwords.hash("ä" * length)
        assert await passwords.check(encoded, unicodedata.normalize("NFD", "ä" * length), known_device=True)
    encoded = passwords.hash(composed)
    assert await passwords.check(encoded, unicodedata.normalize("NFD", composed), known_device=False)
    for wrong in (composed.upper(), composed + " ", "", "\x00", "\ud800", "x" * 1_000_000):
        assert not await passwords.check(encoded, wrong, known_device=False)


async def test_whoever_is_not_there_costs_as_much_work_as_everybody_and_is_never_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[str] = []
    lengths: list[int] = []
    verify = PasswordHasher.verify

    def counting(self: PasswordHasher, encoded: str, password: bytes) -> bool:
        verified.append(encoded)
        lengths.append(len(password))
        return verify(self, encoded, password)

    monkeypatch.setattr(PasswordHasher, "verify", counting)
    passwords = Passwords(CHEAPEST)
    assert not await passwords.check(None, "nobody has this password", known_device=False)
    assert not await passwords.check(passwords.hash("x" * 12), "y" * 12, known_device=False)
    nobody, somebody = verified
    assert extract_parameters(nobody) == extract_parameters(somebody)
    assert not await passwords.check(somebody, "y" * 1_000_000, known_device=False)
    assert max(lengths) < 100, "what nobody can have set costs no more than what somebody can"


async def test_of_each_queue_one_password_is_checked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    go = threading.Event()

    def waiting(_self: PasswordHasher, encoded: str, _password: bytes) -> bool:
        begun.append(encoded)
        if encoded == "a stranger's":
            go.wait(60)
        return True

    monkeypatch.setattr(PasswordHasher, "verify", waiting)
    passwords = Passwords(CHEAPEST)
    strangers = [asyncio.create_task(passwords.check("a stranger's", "x" * 12, known_device=False)) for _ in range(5)]
    await asyncio.sleep(0)
    try:
        for _ in range(5):  # meanwhile the others would have begun, too
            assert await passwords.check("the owner's", "x" * 12, known_device=True)
        assert begun.count("a stranger's") == 1
    finally:
        go.set()
    assert await asyncio.gather(*strangers) == [True] * 5


async def test_a_crowd_of_strangers_does_not_keep_a_known_device_from_being_checked() -> None:
    passwords = Passwords(CHEAPEST)
    encoded = passwords.hash("x" * 12)
    slow = Passwords().hash("x" * 12)
    strangers = [asyncio.create_task(passwords.check(slow, "y" * 12, known_device=False)) for _ in range(100)]
    await asyncio.sleep(0)
    assert await passwords.check(encoded, "x" * 12, known_device=True)
    assert not all(stranger.done() for stranger in strangers)
    outcomes = await asyncio.gather(*strangers, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, HashingBusy)]
    assert len(refused) == 91, "one was checked and eight waited"
    assert all(outcome is False or outcome in refused for outcome in outcomes)


def test_a_code_is_good_once_and_for_one_step_around_its_own() -> None:
    clock, secret = Clock(), new_secret()
    clock.now = 1_000_000_000.0
    app = pyotp.TOTP(secret)

    def accepted(offset: int) -> bool:
        return OneTimeCodes(clock).accept("ann", secret, app.at(clock.now + offset))

    assert [accepted(offset) for offset in (-60, -30, 0, 30, 60)] == [False, True, True, True, False]
    codes = OneTimeCodes(clock)
    now = app.at(clock.now)
    assert codes.accept("ann", secret, f"{now[:3]} {now[3:]}")
    assert not codes.accept("ann", secret, now), "it was used"
    assert not codes.accept("ann", secret, app.at(clock.now - 30)), "an older one after it"
    assert codes.accept("bob", secret, now), "his own"
    clock.advance(30)
    assert codes.accept("ann", secret, app.at(clock.now))


@pytest.mark.parametrize(
    "typed", ["", "1", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "0" * 100_000, "12345\x00"]
)
def test_what_is_no_code_is_not_accepted(typed: str) -> None:
    assert not OneTimeCodes(Clock()).accept("ann", new_secret(), typed)


def test_an_app_is_told_whose_codes_it_makes() -> None:
    assert pyotp.parse_uri(app_uri("ann", new_secret())).name == "ann"


def test_whoever_asks_while_another_thread_reads_the_file_anew_finds_everybody(users: Users) -> None:
    """Consents are written in a thread of the store's, which asks who the person is, beside the event loop."""
    users.add("ann", CHEAP_HASH, ["observe"])
    found: set[bool] = set()

    def ask() -> None:
        found.update(users.find("ann") is not None for _ in range(30_000))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            os.utime(users.path)
            threads[0].join(0.001)
    finally:
        sys.setswitchinterval(before)

    assert found == {True}
