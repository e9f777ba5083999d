"""Logins are tried so often and no more; whoever is no stranger is not held up by those who are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import CHEAPEST

from opencode_gateway.errors import ConfigError
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in import throttle as budgets
from opencode_gateway.sign_in.one_time_codes import new_secret
from opencode_gateway.sign_in.password import Logins, Typed, WrongLogin
from opencode_gateway.sign_in.passwords import HashingBusy, Passwords
from opencode_gateway.sign_in.throttle import (
    Buckets,
    Budget,
    Throttle,
    Throttled,
    is_window_code,
    network,
    window_code,
)
from support.gateway.authorization import Clock

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "correct horse battery"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.json")
    users.add("ann", Passwords(CHEAPEST).hash(PASSWORD), ["observe"])
    return users


@pytest.fixture
def logins(users: Users, clock: Clock) -> Logins:
    return Logins(users, passwords=Passwords(CHEAPEST), throttle=Throttle(clock), clock=clock)


def address(number: int) -> str:
    return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"


async def refused(logins: Logins, attempts: int, typed: Typed) -> float:
    """Make wrong attempts until one is not looked at; return the wait that it is told. `attempts`: how many are."""
    for _ in range(attempts):
        with pytest.raises(WrongLogin):
            await logins.check(typed)
    with pytest.raises(Throttled) as throttled:
        await logins.check(typed)
    return throttled.value.wait


async def storm(logins: Logins, account: str = "ann", addresses: int = 200) -> None:
    """Guess from everywhere until nothing is looked at any more."""
    outcomes = []
    for number in range(addresses):
        try:
            await logins.check(Typed(account, "wrong password", address=address(number)))
        except (WrongLogin, Throttled) as error:
            outcomes.append(type(error))
    assert outcomes[-1] is Throttled


def test_a_budget_is_spent_at_once_and_comes_back_one_by_one(clock: Clock) -> None:
    buckets = Buckets(Budget(3, 10), clock)
    for _ in range(3):
        assert buckets.wait("x") == 0
        buckets.take("x")
    assert buckets.wait("x") == pytest.approx(10)
    assert buckets.wait("y") == 0
    clock.advance(10)
    assert buckets.wait("x") == 0
    buckets.take("x")
    assert buckets.wait("x") == pytest.approx(10)
    buckets.give_back("x")
    assert buckets.wait("x") == 0
    clock.advance(1000)
    for _ in range(3):
        buckets.take("x")
    assert buckets.wait("x") == pytest.approx(10), "waiting long saves up no more than all of it"


def test_the_key_that_was_used_longest_ago_makes_room(clock: Clock) -> None:
    buckets = Buckets(Budget(2, 10), clock, max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key)
    assert [buckets.wait(key) > 0 for key in "abc"] == [True, False, False]
    assert len(buckets) == 2


def test_strangers_cannot_fill_the_memory(clock: Clock) -> None:
    throttle = Throttle(clock)
    for number in range(25_000):
        clock.advance(10)
        throttle.admit(f"name-{number}", exists=False, address=address(number), window="ABCD-EFGH")
    kept = [throttle._addresses, throttle._accounts, throttle._everybody, throttle._devices, throttle._windows]
    assert [len(each) for each in kept] == [10_000, 256, 1, 0, 0]


@pytest.mark.parametrize(
    ("host", "subscriber"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_stands_for_its_subscriber(host: str, subscriber: str) -> None:
    assert network(host) == subscriber


_A_DAY_AHEAD = """
import time
ahead, really = 86400, time.time
time.time = lambda: really() + ahead
from opencode_gateway.sign_in.throttle import ACCOUNT, Throttle, Throttled
throttle = Throttle()
throttle.admit("ann", exists=True, address="203.0.113.7")
ahead = 0
for number in range(ACCOUNT.attempts - 1):
    throttle.admit("ann", exists=True, address=f"198.51.100.{number}")
try:
    throttle.admit("ann", exists=True, address="203.0.113.7")
except Throttled as throttled:
    print(throttled.wait)
"""


def test_a_clock_that_is_set_makes_nobody_wait() -> None:
    done = subprocess.run([sys.executable, "-c", _A_DAY_AHEAD], check=True, capture_output=True, text=True)

    assert 0 < float(done.stdout) <= budgets.ACCOUNT.seconds


async def test_one_address_tries_so_often_whatever_names_it_takes(logins: Logins, clock: Clock) -> None:
    for number in range(budgets.ADDRESS.attempts):
        with pytest.raises(WrongLogin):
            await logins.check(Typed(f"name-{number}", "wrong", address="2001:db8::1"))
    with pytest.raises(Throttled):
        await logins.check(Typed("ann", PASSWORD, address="2001:db8::2"))
    assert (await logins.check(Typed("ann", PASSWORD, address="2001:db8:0:1::1"))).name == "ann"
    clock.advance(budgets.ADDRESS.seconds)
    assert (await logins.check(Typed("ann", PASSWORD, address="2001:db8::2"))).name == "ann"


@pytest.mark.parametrize("account", ["ann", "nobody"])
async def test_an_account_is_guessed_at_so_often_whatever_addresses_that_comes_from(
    logins: Logins, clock: Clock, account: str
) -> None:
    for number in range(budgets.ACCOUNT.attempts):
        with pytest.raises(WrongLogin):
            await logins.check(Typed(account, "wrong", address=address(number)))
    with pytest.raises(Throttled) as throttled:
        await logins.check(Typed(account, PASSWORD, address=address(1000)))
    assert throttled.value.wait == pytest.approx(budgets.ACCOUNT.seconds)
    clock.advance(24 * 3600)
    looked_at = 0
    for number in range(24 * 60):
        clock.advance(60)
        try:
            await logins.check(Typed(account, "wrong", address=address(number)))
        except WrongLogin:
            looked_at += 1
        except Throttled:
            pass
    assert looked_at <= 24 * 3600 / budgets.ACCOUNT.seconds + budgets.ACCOUNT.attempts


async def test_strangers_as_a_whole_cost_so_much_and_no_more(logins: Logins) -> None:
    for number in range(budgets.EVERYBODY.attempts):
        with pytest.raises(WrongLogin):
            await logins.check(Typed(f"name-{number}", "wrong", address=address(number)))
    with pytest.raises(Throttled) as throttled:
        await logins.check(Typed("name-1000", "wrong", address=address(1000)))
    assert throttled.value.wait <= budgets.EVERYBODY.seconds


async def test_work_that_was_done_for_strangers_counts_though_they_were_right(logins: Logins) -> None:
    for number in range(budgets.EVERYBODY.attempts):
        await logins.check(Typed("ann", PASSWORD, address=address(number)))
    with pytest.raises(Throttled):
        await logins.check(Typed("ann", PASSWORD, address=address(1000)))
    assert (await logins.check(Typed("ann", PASSWORD, address=address(1000), device="laptop"))).name == "ann"


async def test_attempts_at_the_same_moment_all_count(logins: Logins) -> None:
    typed = Typed("ann", "wrong", address="203.0.113.7")
    outcomes = await asyncio.gather(*(logins.check(typed) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, WrongLogin) for outcome in outcomes) <= budgets.ADDRESS.attempts
    assert all(isinstance(outcome, WrongLogin | Throttled | HashingBusy) for outcome in outcomes)


async def test_whoever_is_right_is_never_throttled_however_often(logins: Logins) -> None:
    for _ in range(budgets.ADDRESS.attempts + 5):
        assert (await logins.check(Typed(" Ann", PASSWORD, address="203.0.113.7"))).name == "ann"


async def test_during_a_storm_the_owner_logs_in_from_a_device_that_is_known(logins: Logins) -> None:
    await storm(logins)
    with pytest.raises(Throttled):
        await logins.check(Typed("ann", PASSWORD, address=address(0)))
    # Also from behind an address that the storm comes from.
    user = await logins.check(Typed("ann", PASSWORD, address=address(0), device="laptop"))
    assert user.name == "ann"


async def test_the_owners_password_is_checked_while_strangers_wait_for_theirs(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    verify = PasswordHasher.verify

    def held_up(self: PasswordHasher, encoded: str, password: bytes) -> bool:
        if password == b"guess":
            go.wait(60)
        return verify(self, encoded, password)

    monkeypatch.setattr(PasswordHasher, "verify", held_up)
    crowd = [asyncio.create_task(logins.check(Typed("ann", "guess", address=address(n)))) for n in range(9)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(HashingBusy):
            await logins.check(Typed("ann", PASSWORD, address=address(1000)))
        for shown in ({"device": "laptop"}, {"window": "ABCD-EFGH"}):
            assert (await logins.check(Typed("ann", PASSWORD, address=address(1000), **shown))).name == "ann"
    finally:
        go.set()
    assert {type(outcome) for outcome in await asyncio.gather(*crowd, return_exceptions=True)} == {WrongLogin}


async def test_an_attempt_that_was_not_looked_at_since_too_many_came_is_not_counted(
    users: Users, clock: Clock
) -> None:
    class Full(Passwords):
        async def check(self, password_hash: str | None, password: str, *, known_device: bool) -> bool:
            raise HashingBusy

    logins = Logins(users, passwords=Full(CHEAPEST), throttle=Throttle(clock))
    for device in (None, "laptop"):
        for _ in range(budgets.ADDRESS.attempts + budgets.DEVICE.attempts + 1):
            with pytest.raises(HashingBusy):
                await logins.check(Typed("ann", PASSWORD, address="203.0.113.7", device=device))


async def test_a_known_device_has_a_budget_too_and_is_a_stranger_afterwards(logins: Logins, clock: Clock) -> None:
    stolen = Typed("ann", "wrong", address="203.0.113.7", device="stolen")
    await refused(logins, budgets.DEVICE.attempts + budgets.ADDRESS.attempts, stolen)
    assert (await logins.check(Typed("ann", PASSWORD, address="203.0.113.7", device="laptop"))).name == "ann"
    clock.advance(budgets.DEVICE.seconds)
    assert (await logins.check(Typed("ann", PASSWORD, address="203.0.113.7", device="stolen"))).name == "ann"


async def test_during_a_storm_the_owner_logs_in_from_a_new_device_with_the_code_of_the_window(logins: Logins) -> None:
    await storm(logins)
    fresh = Typed("ann", PASSWORD, address=address(5000))
    with pytest.raises(Throttled):
        await logins.check(fresh)
    user = await logins.check(Typed("ann", PASSWORD, address=address(5000), window="ABCD-EFGH"))
    assert user.name == "ann"


async def test_the_code_of_the_window_is_no_password(logins: Logins) -> None:
    guess = Typed("ann", "wrong", address="203.0.113.7", window="ABCD-EFGH")
    await refused(logins, budgets.WINDOW.attempts + budgets.ADDRESS.attempts, guess)


def test_the_code_of_a_window_is_made_from_the_key_and_is_another_for_each_window() -> None:
    key = bytes(32)
    code = window_code(key, 1_000_000_000.25)
    assert code == window_code(key, 1_000_000_000.25)
    assert len({code, window_code(key, 1_000_000_000.75), window_code(bytes(31) + b"1", 1_000_000_000.25)}) == 3
    assert len(code) == 9
    for typed in (code, code.lower(), code.replace("-", " "), f" {code.replace('-', '')} "):
        assert is_window_code(typed, code)
    assert is_window_code("0I23-AB1O".replace("1O", "IO"), "OI23-ABIO")
    for typed in ("", code[:-1], code + "A", "AAAA-AAAA", "ÄÖÜ\ud800", "A" * 100_000):
        assert not is_window_code(typed, code)


async def test_disabled_and_unknown_people_are_refused_in_the_same_words(logins: Logins, users: Users) -> None:
    users.add("bob", Passwords(CHEAPEST).hash(PASSWORD), ["observe"])
    users.set_disabled("bob", disabled=True)
    said = set()
    for name, password in (("bob", PASSWORD), ("bob", "wrong"), ("carol", PASSWORD), ("ann", "wrong")):
        with pytest.raises(WrongLogin) as wrong:
            await logins.check(Typed(name, password, address="203.0.113.7"))
        said.add(str(wrong.value))
    assert len(said) == 1


async def test_a_one_time_code_is_needed_where_it_was_set_up_and_a_mistyped_password_does_not_use_it_up(
    logins: Logins, users: Users, clock: Clock
) -> None:
    secret = new_secret()
    users.set_totp("ann", secret)
    code = pyotp.TOTP(secret).at(clock())
    for password, typed in ((PASSWORD, ""), (PASSWORD, "000000"), ("wrong", code)):
        with pytest.raises(WrongLogin):
            await logins.check(Typed("ann", password, typed, address="203.0.113.7"))
    assert (await logins.check(Typed("ann", PASSWORD, code, address="203.0.113.7"))).name == "ann"
    with pytest.raises(WrongLogin):
        await logins.check(Typed("ann", PASSWORD, code, address="203.0.113.7"))


async def test_one_time_codes_are_guessed_at_as_rarely_as_passwords(
    logins: Logins, users: Users, clock: Clock
) -> None:
    secret = new_secret()
    users.set_totp("ann", secret)
    near = {pyotp.TOTP(secret).at(clock() + offset) for offset in (-30, 0, 30)}
    wrong = next(code for code in ("000000", "000001", "000002", "000003") if code not in near)
    await refused(logins, budgets.ADDRESS.attempts, Typed("ann", PASSWORD, wrong, address="203.0.113.7"))


async def test_a_hash_of_older_parameters_is_renewed_at_the_next_login(users: Users, clock: Clock) -> None:
    logins = Logins(users)
    user = await logins.check(Typed("ann", PASSWORD, address="203.0.113.7"))
    renewed = users.load()["ann"].password_hash
    assert extract_parameters(renewed) != CHEAPEST
    assert user.password_hash == renewed
    assert (await logins.check(Typed("ann", PASSWORD, address="203.0.113.7"))).password_hash == renewed


async def test_a_damaged_file_of_users_lets_nobody_in(logins: Logins, users: Users) -> None:
    users.path.write_text("{")
    with pytest.raises(ConfigError):
        await logins.check(Typed("ann", PASSWORD, address="203.0.113.7", device="laptop"))
