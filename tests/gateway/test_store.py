"""The database: who may read it, how processes share it, what is written whole, and backups."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.errors import CommandRefused, StoreError
from opencode_gateway.oauth.enrolment import list_clients, opened_for
from opencode_gateway.oauth.redirects import commanded
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.store import _MIGRATIONS, Store
from support.fleet.fake_file_system import without_hard_links

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADD = "INSERT INTO machine_tokens (name, hash, capabilities, created_at) VALUES (?, ?, 'observe', 0)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.sqlite3")
    yield store
    store.close()


def names(store: Store) -> list[str]:
    with store.transaction(write=False) as db:
        return [row["name"] for row in db.execute("SELECT name FROM machine_tokens ORDER BY name")]


def add(store: Store, name: str) -> None:
    with store.transaction() as db:
        db.execute(ADD, (name, name.encode()))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_read_any_of_its_files(store: Store, tmp_path: Path) -> None:
    add(store, "a")

    files = list(tmp_path.iterdir())
    assert len(files) > 1  # the log beside it
    assert {mode(path) for path in files} == {0o600}


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    def fail() -> None:
        with store.transaction() as db:
            db.execute(ADD, ("a", b"a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert names(store) == []
    add(store, "b")
    assert names(store) == ["b"]


def test_an_error_of_the_database_is_one_line_and_leaves_it_usable(store: Store) -> None:
    with pytest.raises(StoreError, match=r"gateway\.sqlite3 does not serve"), store.transaction() as db:
        db.execute("SELECT nonsense")

    add(store, "a")
    assert names(store) == ["a"]


def test_a_locked_database_is_to_be_waited_for_and_a_damaged_one_to_be_put_back(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    Store(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    # A backup that is put back would take sessions away, for nothing.
    with pytest.raises(StoreError, match=r"database is locked; another program is writing to it: try again"):
        Store(path)
    holder.close()

    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"is not a database; stop the service, and put a backup of it back"):
        Store(path)


def test_another_process_sees_and_changes_it_at_the_same_time(store: Store) -> None:
    add(store, "here")
    program = (
        "import sys; from pathlib import Path; from opencode_gateway.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.transaction() as db:\n"
        "    print([row[0] for row in db.execute('SELECT name FROM machine_tokens')])\n"
        "    db.execute(sys.argv[2], ('there', b'there'))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(store.path), ADD], check=True, capture_output=True, text=True
    )

    assert done.stdout == "['here']\n"
    assert names(store) == ["here", "there"]


def test_many_threads_write_and_nothing_is_lost(store: Store) -> None:
    def work(number: int) -> None:
        own = Store(store.path)
        for each in range(10):
            add(own, f"{number}-{each}")
            add(store, f"shared-{number}-{each}")
        own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(names(store)) == 80


def test_threads_of_one_connection_take_turns(store: Store) -> None:
    begins = threading.Event()

    def work() -> None:
        begins.set()
        add(store, "b")

    other = threading.Thread(target=work)
    reader = Store(store.path)
    with store.transaction() as db:
        db.execute(ADD, ("a", b"a"))
        other.start()
        begins.wait()
        for _ in range(200):  # meanwhile the other would be in the middle of this transaction
            assert names(reader) == []
    other.join()
    reader.close()

    assert names(store) == ["a", "b"]


def test_what_a_writer_has_read_stays_so_until_it_has_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_gateway.store._BUSY_MILLISECONDS", 1)
    other = Store(store.path)
    with store.transaction() as db:
        assert db.execute("SELECT * FROM machine_tokens").fetchall() == []
        with pytest.raises(StoreError, match="database is locked"):
            add(other, "b")

    add(other, "b")
    assert names(store) == ["b"]
    other.close()


def test_what_was_deleted_cannot_be_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    store = Store(path)
    for name in ("first", "unforgettable", "last"):
        add(store, name)
    store.close()
    assert b"unforgettable" in path.read_bytes()

    store = Store(path)
    with store.transaction() as db:
        db.execute("DELETE FROM machine_tokens WHERE name = 'unforgettable'")
    store.close()

    assert b"forgettable" not in path.read_bytes()


def test_a_reader_does_not_wait_for_a_writer(store: Store) -> None:
    add(store, "a")
    reader = Store(store.path)
    with store.transaction() as db:
        db.execute(ADD, ("b", b"b"))
        assert names(reader) == ["a"]

    assert names(reader) == ["a", "b"]
    reader.close()


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    Store(path).close()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 1000")
    later.close()

    with pytest.raises(StoreError, match="later version"):
        Store(path)


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.sqlite3"
    Store(path).close()
    monkeypatch.setattr(
        "opencode_gateway.store._MIGRATIONS",
        (*_MIGRATIONS, "CREATE TABLE half (x) STRICT; CREATE TABLE nonsense ("),
    )
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.undo()

    store = Store(path)
    add(store, "a")
    with store.transaction(write=False) as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone()[0] == 0
    store.close()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    path.write_text("this is no database, whatever its name says " * 100)

    with pytest.raises(StoreError, match=r"gateway\.sqlite3.*backup"):
        Store(path)


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"see that .*missing"):
        Store(tmp_path / "missing" / "gateway.sqlite3")


def test_a_backup_is_one_whole_private_file_taken_while_it_is_in_use(store: Store, tmp_path: Path) -> None:
    add(store, "a")
    other = Store(store.path)
    directory = tmp_path / "backups"
    directory.mkdir()
    with other.transaction() as db:
        db.execute(ADD, ("unfinished", b"u"))
        store.backup(directory / "copy")
    other.close()

    assert [path.name for path in directory.iterdir()] == ["copy"]
    assert mode(directory / "copy") == 0o600
    opened = sqlite3.connect(directory / "copy")
    assert opened.execute("SELECT name FROM machine_tokens").fetchall() == [("a",)]
    assert [path.name for path in directory.iterdir()] == ["copy"], "not even while somebody looks into it"
    opened.close()
    restored = Store(directory / "copy")
    assert names(restored) == ["a"]
    restored.close()


def test_a_backup_overwrites_nothing(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")

    with pytest.raises(CommandRefused, match="is there already"):
        store.backup(target)

    assert target.read_text() == "precious"
    with pytest.raises(CommandRefused, match="cannot be written"):
        store.backup(tmp_path / "missing" / "copy")


def test_the_signing_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = signing_key(tmp_path)

    assert len(key) == 32
    assert signing_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == ["signing.key"]
    assert mode(tmp_path / "signing.key") == 0o600


def test_of_two_processes_that_make_the_signing_key_the_faster_ones_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "signing.key"

    def held_up(count: int) -> bytes:
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        return bytes(count)

    monkeypatch.setattr("secrets.token_bytes", held_up)

    assert signing_key(tmp_path) == b"k" * 32
    assert list(tmp_path.iterdir()) == [key]


def test_a_key_that_a_full_disk_does_not_take_asks_for_room(tmp_path: Path) -> None:
    with (
        without_hard_links(errno.ENOSPC),
        pytest.raises(StoreError, match=r"signing\.key cannot be used: .+; make room on its disk"),
    ):
        signing_key(tmp_path)


def test_a_signing_key_that_is_damaged_is_not_used(tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(b"short")
    key.chmod(0o600)

    with pytest.raises(StoreError, match="damaged"):
        signing_key(tmp_path)


def test_a_signing_key_that_others_may_read_or_that_is_no_file_is_not_used(tmp_path: Path) -> None:
    signing_key(tmp_path)
    key = tmp_path / "signing.key"
    key.chmod(0o640)

    with pytest.raises(StoreError, match="open to others"):
        signing_key(tmp_path)
    key.unlink()
    os.mkfifo(key, 0o600)
    with pytest.raises(StoreError, match="no regular file"):
        signing_key(tmp_path)


def test_clients_of_a_database_from_before_known_clients_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.sqlite3"
    with monkeypatch.context() as before:
        before.setattr("opencode_gateway.store._MIGRATIONS", _MIGRATIONS[:1])
        old = Store(path)
        with old.transaction() as db:
            db.execute("INSERT INTO enrolment (one, opened_at, open_until) VALUES (1, 0, 60)")
            db.execute(
                "INSERT INTO clients VALUES ('id', 'Chat', 0, 'https://claude.ai/api/mcp/auth_callback', 0, 1)"
            )
        old.close()

    store = Store(path)

    (client,) = list_clients(store)
    assert (client.id, client.name, client.let_in_as) == ("id", "Chat", "")
    with store.transaction(write=False) as db:
        assert opened_for(db, 1.0) == []
        assert commanded(db) == {}
    store.close()
