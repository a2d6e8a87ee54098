"""The window of what was seen: is this a repeat?

Two generations of hashes: the older is dropped whole, so nothing is ever evicted one by one. A hash
has 64 bits and is seeded by the process: among the 200,000 kept at most, an event is taken for a
repeat by chance once in some 10^14.
"""

from __future__ import annotations

from math import inf


class Dedupe:
    """Remembers what was seen, bounded by count and by age.

    Args:
        window: How many events at least are remembered; at most twice as many.
        max_age: For how long at least, in seconds, if the count allows; at most twice as long.
    """

    def __init__(self, window: int = 100_000, max_age: float = 3600.0) -> None:
        """Start with nothing seen."""
        self._window = window
        self._max_age = max_age
        self._until = -inf  # when the newer generation becomes the older one
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __repr__(self) -> str:
        return f"<Dedupe {len(self)} seen, window {self._window}>"

    def __contains__(self, key: int) -> bool:
        return key in self._newer or key in self._older

    def admit(self, key: int, now: float) -> bool:
        """Remember `key`; return False if it was seen already.

        Args:
            key: The hash of the event's identity.
            now: Monotonic seconds.
        """
        if now >= self._until or len(self._newer) >= self._window:
            self._turn(now)
        if key in self._newer or key in self._older:
            return False
        self._newer.add(key)
        return True

    def _turn(self, now: float) -> None:
        """Begin a generation; what is older than `max_age` as a whole has nothing left to say."""
        late = now - self._until
        self._older = self._newer if late < self._max_age else set()
        self._newer = set()
        self._until = (self._until if 0 <= late < self._max_age else now) + self._max_age
