"""A receiver of notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.pages.fake_receiver import Receiver, receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with receiver(tmp_path) as found:
        yield found
