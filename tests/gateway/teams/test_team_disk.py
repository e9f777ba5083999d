"""What lies in the database where people log in at a provider: nothing in the clear, little of strangers."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from opencode_gateway.store import FILE_NAME
from support.authorization import answer_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.team_gateway import Make


async def test_the_disk_holds_no_token_and_no_code_in_the_clear(gateway: Make, tmp_path: Path) -> None:
    async with gateway("github") as running:
        client_id, tokens = await running.log_in()
        sent = await running.visit(running.asking(client_id))
        code = answer_of(sent.headers["location"])["code"]
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200

    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(FILE_NAME))
    assert b"mcp-upstream-tokens" in written
    for secret in (code, tokens["access_token"], tokens["refresh_token"], "asked-again:"):
        assert secret.encode() not in written


async def test_a_stranger_s_requests_fill_what_is_bounded_alone(gateway: Make, tmp_path: Path) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        shown = await running.http.get(running.asking(client_id))
        await running.http.get(shown.headers["location"], headers={"Accept": "text/html"})

        assert filled(tmp_path) == {("mcp-oauth-transactions", "127.0.0.1"), ("mcp-consent-csrf-tokens", "127.0.0.1")}


async def test_what_a_stranger_begins_is_counted_for_all_addresses_of_their_network(
    gateway: Make, tmp_path: Path
) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        for address in ("2001:db8:1:2:3::4", "2001:db8:1:2:5::6"):
            async with running.elsewhere(address) as stranger:
                assert (await stranger.get(running.asking(client_id))).status_code == 302

        assert filled(tmp_path) == {("mcp-oauth-transactions", "2001:db8:1::/48")}


def filled(directory: Path) -> set[tuple[str, str]]:
    """Return which collections hold something, and from where."""
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as database:
        return set(database.execute("SELECT collection, source FROM provider_state"))
