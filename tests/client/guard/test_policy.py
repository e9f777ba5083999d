"""Which directories a policy stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_connected.guard.policy import DEFAULT_RIGHTS, OpenedDirectory, Policy, Right

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path.resolve() / "home"
    for below in ("api/src", "apix", "other/deep"):
        (home / below).mkdir(parents=True)
    (home / "link").symlink_to(home / "api")
    (home / "api" / "out").symlink_to(home / "other" / "deep")
    return home


def policy(path: Path, *, opened: bool) -> Policy:
    return Policy(DEFAULT_RIGHTS, (OpenedDirectory(str(path), "x" if opened else None, opened=opened),))


def test_observe_drive_and_approve_are_the_default() -> None:
    assert {Right.OBSERVE, Right.DRIVE, Right.APPROVE} == DEFAULT_RIGHTS


def test_an_opened_directory_stands_for_itself(home: Path) -> None:
    one = policy(home / "api", opened=True)
    assert all(one.allows(f"{home}{path}") for path in ("/api", "/api/", "/link"))
    for path in ("", "/api/src", "/apix", "/api/out", "/other", "/api/.", "/other/../api", "//api", "/api\0"):
        assert not one.allows(f"{home}{path}"), path


def test_a_root_stands_for_all_below_it_where_links_lead(home: Path) -> None:
    one = policy(home / "api", opened=False)
    assert all(one.allows(f"{home}{path}") for path in ("/api", "/api/src", "/link/src", "/api/new/deeper"))
    for path in ("", "/apix", "/api/out", "/other", "/api/src/..", "/api/out/../../api"):
        assert not one.allows(f"{home}{path}"), path


def test_what_is_no_absolute_path_is_none(home: Path) -> None:
    everything = policy(home.__class__("/"), opened=False)
    assert everything.allows(str(home))
    assert everything.allows("/")
    for path in ("", ".", "home", "~", "//home", "/" + "a" * 5000, "/\ud800"):
        assert not everything.allows(path), path


def test_without_directories_nothing_is_seen(home: Path) -> None:
    assert not Policy(DEFAULT_RIGHTS, ()).allows(str(home))
