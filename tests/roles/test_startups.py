"""How many handshakes sshd lets one address begin at once, where the inventory does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.role_parts import RoleParts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({"relay_sshd_max_startups": "300:30:600"}, 30),
        # A small host, which one address must not fill.
        ({"relay_sshd_max_startups": "21:30:42"}, 14),
        ({"relay_sshd_max_startups": "300:30:600", "relay_sshd_per_source_max_startups": "200"}, 200),
    ],
)
def test_one_address_gets_thirty_or_two_thirds_of_what_all_get(
    tmp_path: Path, settings: dict[str, str], bound: int
) -> None:
    written = tmp_path / "sshd.conf"
    parts = RoleParts(tmp_path, "relay_common", "relay_sshd")
    parts.write("relay_sshd", "sshd.conf.j2", written, __relay_sshd_has_penalties=False, **settings)
    assert f"PerSourceMaxStartups {bound}\n" in written.read_text()
