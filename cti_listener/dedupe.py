"""The window of what was seen: is this a repeat?

Two generations of hashes: the older is dropped whole, so nothing is ever evicted one by one. A hash
has 64 bits and is seeded by the process: among the 200,000 kept at most, an event is taken for a
repeat by chance once in some 10^14.
"""

from __future__ import annotations


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
        self._since: float | None = None  # when the newer generation began
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __repr__(self) -> str:
        return f"<Dedupe {len(self)} seen, window {self._window}>"

    def admit(self, key: int, now: float) -> bool:
        """Remember `key`; return False if it was seen already.

        Args:
            key: The hash of the event's identity.
            now: Monotonic seconds.
        """
        newer = self._newer
        if key in newer or key in self._older:
            return False
        if self._since is None:
            self._since = now
        elif len(newer) >= self._window or now - self._since >= self._max_age:
            # A generation older than max_age as a whole has nothing left to say.
            self._older = newer if now - self._since < 2 * self._max_age else set()
            self._newer = newer = set()
            self._since = now
        newer.add(key)
        return True
