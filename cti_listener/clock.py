"""The one clock: wall time for what people read, monotonic time for intervals, and sleep.

Whatever waits or measures is handed a `Clock`, so that tests move time by hand
(`cti_listener.testing.ManualClock`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from cti_listener.log import log

CATCHING_UP: Final = 0.9
"""So fast goes time while it is ahead of a wall clock that was set back."""

WORTH_TELLING: Final = 1.0
"""Of a clock that is set back by no more than that, in seconds, nothing is said."""

LONGEST: Final = 315_360_000.0
"""No time may be longer, in seconds: it is meant to be for ever, and the calendar ends."""

FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""What is kept of a time that never comes."""


class Clock(Protocol):
    """What the listener asks of time."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; 0 or less only yields to the loop."""


class SystemClock:
    """The machine's own clocks; but the wall clock never goes back.

    If it is set back, time goes on from where it was, a tenth slower, until the wall clock has
    caught up: else a gap would end before it began, or an absence seem to have been none. That is
    logged. A wall clock that is put forward is followed at once, which makes a gap longer at most.

    Args:
        wall: Returns seconds since the epoch; for tests.
        monotonic: For tests.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - this is the room for it
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with what the wall clock says."""
        self._wall = wall
        self._monotonic = monotonic
        self._told, self._told_at = wall(), monotonic()
        self._ahead = 0.0  # of the wall clock, when that was looked at last

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC, or a later time if it was set back."""
        wall, at = self._wall(), self._monotonic()
        least = self._told + CATCHING_UP * (at - self._told_at)
        ahead = max(0.0, least - wall)
        if ahead > self._ahead + WORTH_TELLING:
            log.warning("clock_set_back", seconds=round(ahead, 3))
        self._told, self._told_at, self._ahead = wall + ahead, at, ahead
        return datetime.fromtimestamp(wall + ahead, UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""
        return self._monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; 0 or less only yields to the loop."""
        await asyncio.sleep(seconds)
