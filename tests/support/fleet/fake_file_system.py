"""A stand-in for a file system without hard links, such as vfat, which not every kernel that tests has."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def without_hard_links(code: int, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Refuse this process every hard link with the error `code`, after `meanwhile` was called."""

    def link(*_: object, **__: object) -> NoReturn:
        meanwhile()
        raise OSError(code, os.strerror(code))

    with patch("os.link", link):
        yield
