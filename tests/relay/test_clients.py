"""Who is enrolled on which ports: names that cannot be mistaken, and blocks that never move."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_relay.clients import EnrolledMachines, parse_wanted
from opencode_relay.errors import EnrolmentError, RelayConfigError
from opencode_relay.keys import PublicKey, parse_key
from opencode_relay.settings import RelaySettings

NOW = "2026-11-24T16:00:00Z"


def settings(port_range: str = "10000-19999", block_size: int = 16) -> RelaySettings:
    return RelaySettings.model_validate_json(
        json.dumps(
            {
                "portRange": port_range,
                "blockSize": block_size,
                "registryDir": "/var/lib/opencode-relay",
                "tunnelUser": "opencode-tunnel",
                "agentUser": "opencode-relay",
            }
        )
    )


def key(seed: str) -> PublicKey:
    fields = (b"ssh-ed25519", seed.encode().ljust(32, b"\0")[:32])
    return parse_key(f"ssh-ed25519 {base64.b64encode(b''.join(len(f).to_bytes(4) + f for f in fields)).decode()}")


def enrolled(
    *names: str, state: EnrolledMachines | None = None, under: RelaySettings | None = None
) -> EnrolledMachines:
    under = under or settings()
    return (state or EnrolledMachines.none_yet(under)).with_clients([(name, key(name)) for name in names], under)


def blocks(state: EnrolledMachines) -> dict[str, int]:
    return {client.name: client.first for client in state.clients}


def test_clients_get_the_lowest_blocks_that_were_never_used() -> None:
    state = enrolled("laptop", "desktop")
    assert blocks(state) == {"laptop": 10000, "desktop": 10016}
    assert state.get("desktop").ports == range(10016, 10032)


def test_removing_a_client_moves_nobody_and_its_block_is_given_to_somebody_else_last() -> None:
    small = settings("10000-10063", 16)
    state = enrolled("a1", "b2", "c3", under=small)
    state = enrolled("a1", "c3", state=state, under=small)
    assert blocks(state) == {"a1": 10000, "c3": 10032}
    state = enrolled("a1", "c3", "d4", state=state, under=small)
    assert blocks(state)["d4"] == 10048
    state = enrolled("a1", "c3", "d4", "e5", state=state, under=small)
    assert blocks(state)["e5"] == 10016


def test_who_comes_back_gets_the_old_block_also_beside_a_newcomer_that_would_need_it() -> None:
    small = settings("10000-10047", 16)
    state = enrolled("a1", "b2", "c3", under=small)
    state = enrolled("a1", state=state, under=small)
    state = enrolled("new", "a1", "C3", state=state, under=small)
    assert blocks(state) == {"a1": 10000, "C3": 10032, "new": 10016}


def test_more_clients_than_blocks_are_refused_with_the_remedy() -> None:
    with pytest.raises(EnrolmentError, match="2 clients of 16 ports; extend the range"):
        enrolled("a1", "b2", "c3", under=settings("10000-10040", 16))


def test_the_state_survives_its_file() -> None:
    state = enrolled("laptop", "desktop").without("desktop", at=NOW)
    assert EnrolledMachines.parse(state.to_json(), "clients.json") == state


def test_a_comment_that_somebody_put_behind_a_key_does_no_harm() -> None:
    state = enrolled("laptop")
    edited = state.to_json().replace(state.clients[0].key.encode(), state.clients[0].key.encode() + b" ann@laptop")
    assert EnrolledMachines.parse(edited, "clients.json") == state


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"\xff", b'{"firstPort":1}'),
        enrolled("laptop").to_json().replace(b"ssh-ed25519", b"ssh-dss"),
        enrolled("laptop").to_json().replace(b"laptop", b"../laptop"),
        enrolled("laptop").to_json().replace(b'"last": 10015', b'"last": 1'),
    ],
)
def test_a_damaged_state_file_is_named(content: bytes) -> None:
    with pytest.raises(RelayConfigError, match=r"clients\.json is damaged"):
        EnrolledMachines.parse(content, "clients.json")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (settings("10001-19999"), "would move"),
        (settings(block_size=8), "would move"),
        (settings("10000-10020"), "ports of desktop lie beyond"),
    ],
)
def test_settings_under_which_a_block_would_move_are_refused(changed: RelaySettings, why: str) -> None:
    with pytest.raises(RelayConfigError, match=why):
        enrolled("laptop", "desktop", state=enrolled("laptop", "desktop"), under=changed)


def test_a_longer_range_moves_nobody_and_with_nobody_enrolled_everything_may_change() -> None:
    state = enrolled("laptop", "desktop")
    assert blocks(enrolled("laptop", "desktop", state=state, under=settings("10000-29999"))) == blocks(state)
    emptied = enrolled(state=state)
    assert blocks(enrolled("desktop", state=emptied, under=settings("20000-29999", 4))) == {"desktop": 20000}


@pytest.mark.parametrize(
    "names",
    [
        ("laptop", "Laptop"),
        ("lap", "laptop"),
        ("LAP", "laptop"),
        ("laptop", "desktop", "lap"),
        ("a-b", "a", "a.b"),
        ("",),
        ("-laptop",),
        ("_laptop",),
        ("lap top",),
        ("laptop\n",),
        ("läptop",),
        ("lap/top",),
        ("..",),
        ('x"',),
        ("x" * 33,),
    ],
)
def test_names_by_which_one_could_pose_as_another_or_escape_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(EnrolmentError):
        enrolled(*names)


def test_a_name_that_begins_like_another_is_refused_in_a_sentence() -> None:
    with pytest.raises(EnrolmentError, match="clients laptop and laptop2: laptop2 begins with laptop, so that one"):
        enrolled("laptop", "laptop2")


def test_two_clients_with_one_key_are_refused() -> None:
    with pytest.raises(EnrolmentError, match="desktop and laptop have the same key"):
        EnrolledMachines.none_yet(settings()).with_clients([("desktop", key("x")), ("laptop", key("x"))], settings())


def test_a_revoked_key_is_refused_under_any_name_until_it_is_allowed_again() -> None:
    state = enrolled("laptop", "desktop").without("laptop", at=NOW)
    assert [client.name for client in state.clients] == ["desktop"]
    for name in ("laptop", "other"):
        with pytest.raises(EnrolmentError, match="opencode-relay unrevoke SHA256:"):
            state.with_clients([(name, key("laptop"))], settings())
    anew = state.with_clients([("desktop", key("desktop")), ("laptop", key("new"))], settings())
    assert blocks(anew) == {"laptop": 10000, "desktop": 10016}
    allowed = anew.with_key_allowed(key("laptop").fingerprint)
    assert blocks(allowed.with_clients([("laptop", key("laptop"))], settings())) == {"laptop": 10000}


def test_who_is_not_enrolled_cannot_be_revoked_and_what_is_not_revoked_cannot_be_allowed() -> None:
    with pytest.raises(EnrolmentError, match="no client 'tablet' is enrolled"):
        enrolled("laptop").without("tablet", at=NOW)
    with pytest.raises(EnrolmentError, match="no key 'SHA256:x' is revoked"):
        enrolled("laptop").with_key_allowed("SHA256:x")


def test_a_revoked_key_is_found_by_its_clients_name_where_the_client_had_no_other() -> None:
    state = enrolled("laptop", "desktop").without("laptop", at=NOW).without("desktop", at=NOW)
    assert [entry.name for entry in state.with_key_allowed("laptop").revoked] == ["desktop"]
    again = state.with_clients([("laptop", key("new"))], settings()).without("laptop", at=NOW)
    with pytest.raises(EnrolmentError, match="2 keys of laptop are revoked: give the fingerprint"):
        again.with_key_allowed("laptop")
    assert again.with_key_allowed(key("new").fingerprint).revoked == state.revoked


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"clients":{}}',
        b'{"clients":[{"name":"laptop"}]}',
        b'{"clients":[{"name":1,"key":"x"}]}',
        b'{"clients":[{"name":"laptop","key":"x","options":"y"}]}',
        b'{"clients":[{"name":"laptop","key":"ssh-ed25519 x"}]}',
    ],
)
def test_a_list_of_another_shape_is_refused(content: bytes) -> None:
    with pytest.raises(EnrolmentError, match=r"list of clients is wrong|key is damaged"):
        parse_wanted(content)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ('{"name":1,"key":"x"}', "the name of entry 2, '1', is no text: quote it"),
        ('{"name":true,"key":"x"}', "the name of entry 2, 'True', is no text: quote it"),
        ('{"name":"tablet","key":7}', "the key of entry 2, '7', is no text: quote it"),
        (
            '{"name":"tablet","key":"ssh-ed25519 x"}',
            "client 'tablet': the key is damaged. Copy the whole line that `op",
        ),
        ('{"name":"tablet","key":"x"}', "client 'tablet': the key is no public key. Copy the whole line"),
    ],
)
def test_an_entry_that_is_wrong_is_named_with_the_remedy(entry: str, why: str) -> None:
    with pytest.raises(EnrolmentError, match=re.escape(why)):
        parse_wanted(f'{{"clients":[{{"name":"laptop","key":"{key("laptop")}"}},{entry}]}}'.encode())


NAMES = [f"{letter}{number}" for letter in "abc" for number in range(4)]


@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True), max_size=12))
def test_whoever_comes_and_goes_blocks_are_disjoint_and_nobody_who_stays_moves(changes: list[list[str]]) -> None:
    under = settings(f"10000-{10000 + 4 * len(NAMES) - 1}", 4)
    state = EnrolledMachines.none_yet(under)
    for names in changes:
        before = blocks(state)
        state = enrolled(*names, state=state, under=under)
        after = blocks(state)
        assert sorted(after) == sorted(names)
        assert len(set(after.values())) == len(names)
        assert all(after[name] == first for name, first in before.items() if name in after)
        used = [*state.clients, *state.retired]
        assert len({block.first for block in used}) == len(used)


@given(st.lists(st.text("aAbB-_1", min_size=1, max_size=4), unique=True, min_size=2, max_size=5))
def test_of_two_enrolled_names_none_begins_like_the_other(names: list[str]) -> None:
    try:
        state = enrolled(*names)
    except EnrolmentError:
        return
    lowered = [client.name.lower() for client in state.clients]
    assert not any(a != b and b.startswith(a) for a in lowered for b in lowered)
    assert len(set(lowered)) == len(names)


@pytest.mark.parametrize(
    ("before", "wanted", "stays", "renamed", "better"),
    [
        ((), ("lap", "lap-2"), "lap", "lap-2", "2-lap"),
        (("lap",), ("lap", "lap-2"), "lap", "lap-2", "2-lap"),
        (("lap-2",), ("lap", "lap-2"), "lap-2", "lap", "new-lap"),
        (("lap",), ("lap", "laptop"), "lap", "laptop", "top-lap"),
        (("lap", "2"), ("2", "lap", "lap-2"), "lap", "lap-2", "new-lap"),
        (("lap", "2", "new"), ("2", "lap", "lap-2", "new"), "lap", "lap-2", "3-lap"),
        (("lap",), ("lap", "LAP"), "lap", "LAP", "new-lap"),
        (("LAP",), ("lap", "LAP"), "LAP", "lap", "new-lap"),
    ],
)
def test_a_name_too_like_another_comes_with_a_free_one_that_renames_nobody_enrolled(
    before: tuple[str, ...], wanted: tuple[str, ...], stays: str, renamed: str, better: str
) -> None:
    state = enrolled(*before)
    with pytest.raises(EnrolmentError) as refused:
        enrolled(*wanted, state=state)
    assert f"Leave {stays} as it is" in str(refused.value)
    assert f"`opencode-connected enroll --name {better}` on {renamed}" in str(refused.value)
    enrolled(*(better if name == renamed else name for name in wanted), state=state)


@given(st.text("ab2-", min_size=1, max_size=32), st.text("ab2-", min_size=1, max_size=8))
def test_the_name_that_is_given_is_always_one_that_is_taken(shorter: str, more: str) -> None:
    longer = (shorter + more)[:32]
    try:
        enrolled(shorter, longer)
    except EnrolmentError as error:
        if "pose as the other" in str(error):
            better = str(error).partition("--name ")[2].partition("`")[0]
            enrolled(shorter, better)
