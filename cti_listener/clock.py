"""The one clock: wall time for what people read, monotonic time for intervals, and sleep.

Whatever waits or measures is handed a `Clock`, so that tests move time by hand
(`cti_listener.testing.ManualClock`).
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the listener asks of time."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; 0 or less only yields to the loop."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; 0 or less only yields to the loop."""
        await asyncio.sleep(seconds)
