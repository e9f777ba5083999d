"""Which rows a journal has now: those of its file, or some in memory while the file does not serve.

In memory it has another epoch, so that nobody takes a cursor of the one for a cursor of the other.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from opencode_common.database import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseNewer,
    check_private_file,
    connect,
    make_private_directory,
    make_private_file,
)
from opencode_journal.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_NAME: Final = "journal.sqlite3"
_PATIENCE: Final = 2.0
"""Seconds that the event loop waits for another copy that writes; they do so for milliseconds."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LOW_IN_MEMORY: Final = 100_000
_HELPS: Final[dict[type[DatabaseError], str]] = {
    DatabaseBusy: "end the program that is writing to it",
    DatabaseFull: "make room on its disk",
    DatabaseDamaged: "remove it; what it knew is lost",
    DatabaseNewer: "run that version here, too",
}
_log = logging.getLogger(__name__)


class _Identity(NamedTuple):
    device: int
    inode: int


class OpenedRows:
    """The rows that serve now.

    Args:
        directory: made if it is missing; None keeps everything in memory.
        leads: whether this copy leads. Each remembers the same in memory, and one alone may write it into the file.
    """

    def __init__(self, directory: Path | None, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._inherited: frozenset[str] = frozenset()
        """Keys of the states in the file of which those in memory were made."""
        self._path = None if directory is None else directory / FILE_NAME
        self._identity: _Identity | None = None
        self._last_handle = 0
        """Of the file, as far as we know."""
        self.trouble = ""
        """Why all is in memory alone, in one line; empty while it is kept."""
        self._open()

    def _open(self) -> None:
        """Open the file, or rows in memory."""
        self.rows: Rows
        try:
            self.rows = self._open_file(_PATIENCE)
        except (OSError, DatabaseError) as error:
            self._say(error)
            self.rows = _open_memory(self._last_handle)

    @property
    def is_kept(self) -> bool:
        """Whether the file serves."""
        return not self.trouble

    def fall_back(self, error: DatabaseError | OSError) -> None:
        """Go on in memory, as the file failed; what is there of handles and states goes along."""
        if not self.is_kept:
            raise error
        self._say(error)
        file = self.rows
        self._inherited = frozenset()
        try:
            self._last_handle = file.last_handle()
            self.rows = _open_memory(self._last_handle)
            self._inherited = self.rows.inherit(file, self._last_handle)
        except DatabaseError as damage:
            _log.warning("handles and states of %s cannot be read: %s", self._path, damage)
            self.rows = _open_memory(self._last_handle)
        file.close()

    def look(self) -> bool:
        """See what others did with the file, and return whether there may be something new."""
        if not self.is_kept:
            return self._return()
        if not self.is_in_place():
            self._begin_anew()
            return True
        try:
            self._last_handle = self.rows.last_handle()
            return self.rows.changed_elsewhere()
        except DatabaseError as error:
            self.fall_back(error)
            return True

    def is_in_place(self) -> bool:
        """Whether the file that we have open, if we have, is the one that has its name."""
        return not self.is_kept or self._identity == _identity(self._path)

    def _begin_anew(self) -> None:
        """Open another file, as ours was removed: what was in it is forgotten, and only its handles are not reused.

        Nothing is read from it any more, as its log and the new one's have the same names.
        """
        self.rows.close()
        self._open()
        try:
            self.rows.number_handles_beyond(self._last_handle)
        except DatabaseError as error:
            self.fall_back(error)
        _log.warning("%s was removed: its entries are forgotten", self._path)

    def _return(self) -> bool:
        """Take what is in memory back into the file; return whether that went well.

        Nobody waits for that: the file is tried again later.
        """
        try:
            file = self._open_file(patience=0)
        except (OSError, DatabaseError):
            return False
        try:
            if self._leads():
                file.take_in(self.rows, self._last_handle, self._inherited)
            else:
                file.take_handles(self.rows, self._last_handle)
            file.wait_for_others(_PATIENCE)
        except DatabaseError:
            file.close()
            return False
        self.rows.close()
        self.rows = file
        self.trouble = ""
        _log.warning("the journal is kept in %s again", self._path)
        return True

    def _open_file(self, patience: float) -> Rows:
        if self._path is None:
            raise FileNotFoundError(0, "there is no directory for it", FILE_NAME)
        make_private_directory(self._path.parent)
        make_private_file(self._path)
        check_private_file(self._path)
        identity = _identity(self._path)
        connection = connect(self._path, patience)
        try:
            rows = Rows(connection, _boot())
        except BaseException:
            connection.close()
            raise
        self._identity = identity
        return rows

    def why(self, error: OSError | DatabaseError) -> str:
        """Return in words what is wrong with the file, and the next step."""
        if self._path is None:
            return "there is no directory for it; set RELAY_STATE_DIR"
        if isinstance(error, OSError):
            return (
                f"{error.filename} cannot be used: {error.strerror}; set RELAY_STATE_DIR to a directory of your own"
            )
        helps = next((helps for kind, helps in _HELPS.items() if isinstance(error, kind)), "see what is wrong there")
        return f"{self._path} does not serve: {error}; {helps}"

    def _say(self, error: OSError | DatabaseError) -> None:
        self.trouble = f"what happens is remembered only until this server ends: {self.why(error)}"
        _log.warning("%s", self.trouble)


def _open_memory(last_handle: int) -> Rows:
    """Open rows whose new handles are none that the file, or another process, is likely to give out."""
    rows = Rows(connect(":memory:", 0), "")
    rows.number_handles_beyond(last_handle + _LOW_IN_MEMORY + secrets.randbelow(8 * _LOW_IN_MEMORY))
    return rows


def _identity(path: Path | None) -> _Identity | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return _Identity(status.st_dev, status.st_ino)


def _boot() -> str:
    """Return what tells this boot of the machine from others; where nothing does, each opening counts as one."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(16)
