"""Is the peer alive? Judged by bytes: any byte is a sign of life, and a ping asks for one.

A reader that was paused, or a loop that was held up, is no evidence against the peer, nor is the
silence of one that was not asked.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from cti_listener.clock import Clock
from cti_listener.sources.options import ConnectionOptions

READ: Final = 2
"""After so many turns of the loop something of what waited in a socket has been read."""


class Liveness:
    """Keeps when bytes came and went, and judges by it.

    Args:
        options: `ping_interval` and `silence_limit`.
        clock: The one clock.
    """

    def __init__(self, options: ConnectionOptions, clock: Clock) -> None:
        """Begin now."""
        self._ping_interval = options.ping_interval
        self._limit = options.silence_limit
        self._clock = clock
        self._heard_at = self._excused_until = self.sent_at = clock.monotonic()
        self._ticked_at = self._heard_at
        self._asked = False  # for a sign, since the last one
        # When the socket was known to be empty, by both clocks; and when it was before this read.
        self._emptied = self._emptied_before = self._reading = clock.monotonic(), clock.now()
        self._flooded = False  # the last read left something behind
        self.heartbeat_send = 0.0
        """How often the server wants a heart-beat, in seconds; 0: never."""

    def reading(self) -> None:
        """Note that the socket is about to be read."""
        self._reading = self._clock.monotonic(), self._clock.now()
        self._emptied_before = self._emptied

    def heard(self, *, more: bool = False) -> None:
        """Note that bytes came.

        Args:
            more: Whether there may be more of them, unread.
        """
        self._heard_at = self._clock.monotonic()
        self._asked = False
        if not (more or self._flooded):
            self._emptied = self._reading
        self._flooded = more

    def last_came(self, ago: float) -> None:
        """Note how many seconds ago the last bytes came, by the system.

        Where the loop was held up they were read later, and so was the end that came behind them.
        """
        at, on = self._emptied
        now, today = self._clock.monotonic(), self._clock.now()
        self._emptied = min(at, now - ago), min(on, today - timedelta(seconds=ago))

    def asked(self) -> None:
        """Note that a ping was sent."""
        self._asked = True

    def sent(self) -> None:
        """Note that something was sent."""
        self.sent_at = self._clock.monotonic()

    def excuse(self) -> None:
        """Hold no silence before now against the peer."""
        self._excused_until = self._ticked_at = self._clock.monotonic()

    def not_taken(self) -> None:
        """Note that of the bytes that came last, some were not taken."""
        self._emptied = self._emptied_before

    @property
    def last_sign(self) -> datetime:
        """The last sign of life, by the wall clock: whatever was not taken came later.

        That is when a read began that left nothing behind, and neither did the one before: else the
        peer may have had more to send than there was room for. Not when the last byte was read:
        others may have come meanwhile, or waited behind it.

        The earlier of two answers, so that no gap begins too late: monotonic time stands still
        while the machine is suspended, and the wall clock may have been set since.
        """
        at, on = self._emptied
        return min(on, self._clock.now() - timedelta(seconds=self._clock.monotonic() - at))

    @property
    def silence(self) -> float:
        """For how long the peer has been silent without excuse, in seconds."""
        return self._clock.monotonic() - max(self._heard_at, self._excused_until)

    @property
    def _silent(self) -> bool:
        """Whether that is too long, and the peer was asked for a sign, where peers are."""
        return 0 < self._limit <= self.silence and (self._asked or not self._ping_interval)

    async def is_dead(self) -> bool:
        """Judge whether the peer is silent for too long, once what waits in the socket was read."""
        for _ in range(READ):
            if not self._silent:
                return False
            await asyncio.sleep(0)
        return self._silent

    @property
    def ping_due(self) -> bool:
        """Whether the peer should be asked for a sign."""
        return 0 < self._ping_interval <= self.silence

    @property
    def heartbeat_due(self) -> bool:
        """Whether the peer may begin to miss us: half of what we agreed on has passed."""
        return 0 < self.heartbeat_send <= 2 * (self._clock.monotonic() - self.sent_at)

    async def tick(self) -> None:
        """Wait until it is worth judging again; time that the loop was held up is excused.

        However little it was: many short blocks are as long as one. It counts from the tick before,
        so that none of it falls between two.
        """
        spans = (1.0, self._ping_interval / 2, self._limit / 4, self.heartbeat_send / 4)
        wait = min(span for span in spans if span > 0)
        await self._clock.sleep(wait)
        now = self._clock.monotonic()
        late = now - self._ticked_at - wait
        self._ticked_at = now
        if late > 0:
            excused = max(self._heard_at, self._excused_until) + late
            self._excused_until = min(excused, now)  # what was heard since needs no excuse
