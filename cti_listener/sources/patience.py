"""A time limit that counts only the time in which the event loop turns.

A limit of asyncio's expires in the first turn after the loop was held up, when the answer lies
unread in the socket. `transport`, `endpoints` and `life` wait for the server by this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

STEPS: Final = 8
"""A limit is counted in so many steps; so many that were held up do not count, and no more."""

HELD_UP: Final = 0.1
"""A step so late, in seconds, and by half of itself, was held up."""


@asynccontextmanager
async def turning(seconds: float) -> AsyncIterator[None]:
    """Give the block so many seconds in which the loop turns.

    Raises:
        TimeoutError: It took longer.
    """
    async with asyncio.timeout(None) as limit:
        countdown = _Countdown(limit, seconds)
        try:
            yield
        finally:
            countdown.timer.cancel()


class _Countdown:
    """Ends a limit after so many steps that were not held up."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._step = seconds / STEPS
        self._left = self._forgiven = STEPS
        self._await_step()

    def _await_step(self) -> None:
        self._due = self._loop.time() + self._step
        self.timer = self._loop.call_at(self._due, self._step_over)

    def _step_over(self) -> None:
        late = self._loop.time() - self._due
        if self._forgiven and late > max(HELD_UP, self._step / 2):
            self._forgiven -= 1
        else:
            self._left -= 1
        if self._left:
            self._await_step()
        else:
            self._limit.reschedule(self._loop.time())
