"""Who is connected, and how a message reaches all of them who want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from cti_listener.simulator.connection_faults import Cue
from cti_listener.simulator.doors import Outgoing
from cti_listener.simulator.records import Stats
from cti_listener.simulator.sessions import Session
from cti_listener.simulator.standings import Standings
from cti_listener.simulator.stream_faults import Message
from cti_listener.simulator.topics import Seating


class Audience:
    """The open sessions.

    Args:
        stats: Where to count.
        queue_limit: How many messages may wait for one session.
        slow_after: How long a session may take where it is waited for, in seconds.

    Attributes:
        standings: How each agent stands, by what was published.
    """

    def __init__(self, stats: Stats, *, queue_limit: int, slow_after: float) -> None:
        """Begin with nobody."""
        self._stats = stats
        self.standings = Standings()
        self._queue_limit = queue_limit
        self._slow_after = slow_after
        self._sessions: dict[int, Session] = {}
        self._seating = Seating()
        self._changed = asyncio.Event()

    @property
    def sessions(self) -> Sequence[Session]:
        """The open sessions, the oldest first."""
        return tuple(one for one in self._sessions.values() if not one.over.is_set())

    def note_change(self) -> None:
        """Wake whoever waits for a session to come, go, or change its subscriptions."""
        self._changed.set()

    async def attend(self, session: Session, faults: Iterable[AsyncIterator[Cue]]) -> None:
        """Have a session in the audience until it ends."""
        self._sessions[session.number] = session
        try:
            await session.run(faults)
        finally:
            del self._sessions[session.number]
            self.note_change()

    async def wait_for_subscribers(self, n: int = 1) -> None:
        """Wait until so many sessions are subscribed to something."""
        while sum(session.subscribed for session in self._sessions.values()) < n:
            await self._change()

    # Publishing

    def offer(self, message: Message) -> int:
        """Queue a message for all who want it; return how many messages that made."""
        if message.body is None and not message.repeat:
            self.standings.note(message.event)
        outgoing = Outgoing(message, self._seating.route(message.event))
        reached = sum([session.offer(outgoing) for session in self._takers(outgoing)])
        self._stats.published += 1
        self._stats.unwanted += not reached
        return reached

    async def offer_patiently(self, message: Message) -> int:
        """Queue a message, and wait for those who cannot keep up."""
        reached = self.offer(message)
        if crowded := self._crowded():
            await self._wait(crowded, most=self._queue_limit // 2)
        return reached

    def offer_in_time(self, message: Message) -> None:
        """Queue a message, and end the sessions that cannot keep up."""
        self.offer(message)
        for session in self._crowded():
            self._drop(session)

    async def settle(self) -> None:
        """Wait until all that was queued is written; who takes too long is out."""
        await asyncio.sleep(0)  # with nothing to wait for, who sends in a loop must not block it
        await self._wait(self.sessions, most=0)

    async def disconnect(self, code: int | None) -> None:
        """End every session: with a code, or without a word; return when they are gone."""
        sessions = tuple(self._sessions.values())
        if code is None:
            for session in sessions:
                session.abort()
        else:
            await asyncio.gather(*(session.close(code) for session in sessions))
        while any(session.number in self._sessions for session in sessions):
            await self._change()

    # Private

    def _takers(self, outgoing: Outgoing) -> Iterable[Session]:
        """Return who may get it: everybody, or one of those who want it."""
        which = outgoing.message.to_one
        if which is None:
            return self._sessions.values()
        takers = [one for one in self._sessions.values() if one.wants(outgoing.route)]
        return takers and [takers[min(int(which * len(takers)), len(takers) - 1)]]

    def _crowded(self) -> list[Session]:
        return [one for one in self._sessions.values() if one.queued > self._queue_limit]

    async def _wait(self, sessions: Iterable[Session], *, most: int) -> None:
        for session in sessions:
            if not await session.until_backlog(most, self._slow_after):
                self._drop(session)

    def _drop(self, session: Session) -> None:
        self._stats.slow += 1
        session.abort()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
