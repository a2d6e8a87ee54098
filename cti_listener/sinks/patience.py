"""When a receiver may be tried again: what it asks for, and how long all wait when it is away.

Called by `webhook`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from cti_listener.backoff import wait_outage
from cti_listener.clock import Clock

MOST: Final = 3600.0
"""No `Retry-After` is honoured for longer, in seconds."""


def retry_after(text: str | None, now: datetime) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date; None if it says nothing.

    Args:
        text: The header.
        now: The wall clock, aware.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MOST)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), MOST)


class Gate:
    """Holds up all that go to one receiver, while it is known to be away as a whole.

    Each that is turned away closes it for longer, by the age of the outage; what comes back from a
    try that was under way when it closed changes nothing.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin open."""
        self._clock = clock
        self._backoff = wait_outage()
        self._since: float | None = None
        self._until = 0.0

    def __repr__(self) -> str:
        return f"<Gate {'open' if self._clock.monotonic() >= self._until else 'closed'}>"

    async def wait(self) -> None:
        """Wait until it is open."""
        while (left := self._until - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)

    def close(self, asked: float | None = None) -> None:
        """Close it: nobody is there, or it wants to be left alone.

        Args:
            asked: For how long the receiver asked; None: it did not say.
        """
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        if now >= self._until:
            self._until = now + self._backoff.after(now - self._since)
        if asked is not None:
            self._until = max(self._until, now + asked)

    def open(self) -> None:
        """End the outage: it took something. A time that it asked for still counts."""
        self._since = None
