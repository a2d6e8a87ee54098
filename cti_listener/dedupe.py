"""The window of what was seen: is this a repeat? And what the latest texts said.

Two generations of hashes each: the older is dropped whole, so nothing is ever evicted one by one. A
hash has 64 bits and is seeded by the process: among the 200,000 kept at most, an event is taken for
a repeat by chance once in some 10^14, and by its text, among 8,000, far more seldom.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

LOOK: Final = 256
"""After so many events it is looked whether many were repeats."""

KEPT: Final = 4000
"""Of how many of the latest events at least the texts are known; at most of twice as many."""

LONGEST: Final = 4096
"""A longer text is not, in bytes."""

UNTRIED: Final = 2
"""After so many times `KEPT` all that can come again to the byte has been known before."""

REST: Final = 10.0
"""For how long no text is known after few came again to the byte, in seconds."""

Said = tuple[str | None, Any, int]
"""What a text said: the event's device and name, and the hash the window knows it by.

No more of it, lest all its values stay alive.
"""


class Dedupe:
    """Remembers what was seen, bounded by count and by age.

    Args:
        window: How many events at least are remembered; at most twice as many.
        max_age: For how long at least, in seconds, if the count allows; at most twice as long.

    Attributes:
        max_age: As above.
    """

    def __init__(self, window: int = 100_000, max_age: float = 3600.0) -> None:
        """Start with nothing seen."""
        self._window = window
        self.max_age = max_age
        self._until = -inf  # when the newer generation becomes the older one
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __repr__(self) -> str:
        return f"<Dedupe {len(self)} seen, window {self._window}>"

    def __contains__(self, key: int) -> bool:
        return key in self._newer or key in self._older

    def knows(self, key: int, now: float) -> bool:
        """Tell whether `admit` would return False, and change nothing; in doubt, no."""
        if now >= self._until or len(self._newer) >= self._window:
            return False
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
        self._older = self._newer if late < self.max_age else set()
        self._newer = set()
        self._until = (self._until if 0 <= late < self.max_age else now) + self.max_age


class Texts:
    """What the latest texts said, so that one that comes again need not be read.

    They are told by their hashes: the texts themselves would fall out of the processor's cache. To
    keep these costs every event something, and saves most of what a repeat costs. So none is kept
    until many of the latest events were repeats, nor for long if few were so to the byte.

    Args:
        share: Which part of the events has to be; half of that, once they are kept.
        look: After so many events it is looked whether it is.

    Attributes:
        due: After so many events in all it is time to look again.
    """

    def __init__(self, share: float = 1 / 3, look: int = LOOK) -> None:
        """Keep none yet."""
        self.due = self._look = look
        self._share = share
        self._on = False
        self._untried = 0
        self._rest_until = -inf
        self._events = self._repeats = self._recalled = 0  # when it was looked last
        self._newer: dict[int, Said] = {}
        self._older: dict[int, Said] = {}

    def __repr__(self) -> str:
        return f"<Texts {len(self._newer) + len(self._older)} kept>"

    def keep(self, text: bytes, said: Said) -> None:
        """Keep what a text said, while texts are kept."""
        if len(text) <= LONGEST:
            self._newer[hash(text)] = said

    def said(self, text: bytes) -> Said | None:
        """Return what a text said; None: it is not kept."""
        name = hash(text)
        return self._newer.get(name) or self._older.get(name)

    def look(self, events: int, repeats: int, recalled: int, now: float) -> bool:
        """Tell whether texts should be kept from now on.

        Args:
            events: How many came so far.
            repeats: How many of these were repeats.
            recalled: How many of these were told by their text.
            now: Monotonic seconds.
        """
        many = self._share * (events - self._events)
        if not self._on:
            self._on = repeats - self._repeats >= many and now >= self._rest_until
            self._untried = UNTRIED
        elif self._untried:
            self._untried -= 1
        elif recalled - self._recalled < many / 2:
            self._on = False
            self._rest_until = now + REST
            self._newer = {}
        self._older, self._newer = self._newer, {}
        self._events, self._repeats, self._recalled = events, repeats, recalled
        self.due = events + (KEPT if self._on else self._look)
        return self._on
