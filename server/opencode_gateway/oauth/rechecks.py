"""Asks an identity provider again whether the login of a session still counts, when a token of it is used.

It fails closed: while the provider does not answer, nobody can say whether the token is good. Of each session one
question is under way at a time, and whoever waits for it gets its answer. One that was begun is brought to its end:
many providers take a refresh token once, and the next one must not be lost. While it cannot be written down, it is
kept in memory. Within a round of refreshes (see `rounds`) one answer counts for all: a hundred windows of a client
ask the provider once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.rounds import ROUND_SECONDS
from opencode_gateway.sign_in.step import LoginEnded, ProviderFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_gateway.oauth.grants import Grants, Token
    from opencode_gateway.sign_in.step import Renewing
    from opencode_gateway.store import Store


class Rechecks:
    """The questions of one gateway.

    Args:
        provider: who is asked.
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: Store, grants: Grants, provider: Renewing, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._grants = grants
        self._provider = provider
        self._clock = clock
        self._asking: dict[str, asyncio.Task[LoginEnded | GatewayError | None]] = {}
        """By session."""
        self._unwritten: dict[str, bytes] = {}
        """By session: with what the provider must be asked from now on, where the store has not taken it yet."""
        self._answered: dict[str, float] = {}
        """By session: when the provider last vouched for it, for as long as a round takes."""

    async def check(self, token: Token, *, at_once: bool = False) -> None:
        """Return if the login of this token's session still counts.

        Args:
            token: one that is good otherwise.
            at_once: ask even if the last answer still counts, unless it came in this round.

        Raises:
            Ended: it does not count any longer, and the session has ended.
            ProviderFailed, StoreError: that cannot be established now.
        """
        if token.recheck_at is None or (self._clock() < token.recheck_at and not at_once):
            return
        session_id = token.session_id
        if at_once and self._clock() < token.recheck_at and self._was_just_answered(session_id):
            return
        if session_id not in self._asking:
            asking = asyncio.create_task(self._ask(session_id, token.login))
            self._asking[session_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(session_id, None))
        problem = await asyncio.shield(self._asking[session_id])
        if problem is not None:
            raise problem

    def _was_just_answered(self, session_id: str) -> bool:
        now = self._clock()
        # Nor what would be of the future, after a clock was set back.
        self._answered = {each: at for each, at in self._answered.items() if 0 <= now - at <= ROUND_SECONDS}
        return session_id in self._answered

    async def _ask(self, session_id: str, login: str) -> LoginEnded | GatewayError | None:
        """Return what is raised for all who wait."""
        try:
            with self._store.transaction(write=False) as db:
                row = db.execute("SELECT renewal FROM sessions WHERE id = ?", (session_id,)).fetchone()
            if row is None:
                self._unwritten.pop(session_id, None)
                return LoginEnded("ended", "this session was ended")
            renewal = self._unwritten.get(session_id, row["renewal"])
            try:
                if renewal is None:
                    raise LoginEnded("provider-ended", "this login cannot be renewed: log in anew")
                proof = await self._provider.again(login, renewal)
            except LoginEnded as ended:
                await self._grants.end(session_id, ended.why)
                self._unwritten.pop(session_id, None)
                return ended
            except ProviderFailed as failure:
                if failure.renewal is not None:
                    await self._keep(session_id, failure.renewal, None)
                return failure
            if not await self._keep(session_id, proof.renewal, proof.recheck_at):
                return LoginEnded("ended", "this session was ended")
            self._answered[session_id] = self._clock()
        except GatewayError as error:
            return error
        return None

    async def _keep(self, session_id: str, renewal: bytes | None, recheck_at: float | None) -> bool:
        """Note what came of a question; False if the session was ended meanwhile. None leaves the time as it is."""
        changed = "UPDATE sessions SET renewal = ?, recheck_at = coalesce(?, recheck_at) WHERE id = ?"
        values = (renewal, recheck_at, session_id)
        if renewal is not None:
            self._unwritten[session_id] = renewal
        kept = await self._store.write(lambda db: db.execute(changed, values).rowcount == 1)
        self._unwritten.pop(session_id, None)
        return kept
