"""Sightings: which feed brought an event first, and which brought it too.

Called by `feeds` with each event. A server that gives each event to one of two sessions only makes
two feeds two halves: that shows in how few events are seen on both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 10.0
"""For how long, at least, a second copy of an event is waited for, in seconds."""

MOST: Final = 200_000
"""How many events are followed so at once; with more, the window is shorter."""

JUDGED: Final = 200
"""How many events on which more than one feed stood are enough to judge by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """What one feed brought; counts are since the start.

    Attributes:
        connected: Whether every subscription of it stands now.
        seen: Events it brought, its own repeats left out.
        first: Those that no other feed had brought before.
        alone: Those that no other feed brought within some ten seconds.
        lead: How far ahead of the other's copy its first ones were, on average, in seconds.
        lag: How far behind its other ones were, on average, in seconds.
    """

    connected: bool
    seen: int
    first: int
    alone: int
    lead: float
    lag: float


@dataclass(slots=True)
class _Count:
    seen: int = 0
    first: int = 0
    alone: int = 0
    shared: int = 0
    lead: float = 0.0
    lag: float = 0.0


class Sighting:
    """An event: when it came first, and by which feeds it came since, the first one first."""

    __slots__ = ("at", "both", "feeds")

    def __init__(self, feed: str, at: float, *, both: bool) -> None:
        """Note who brought it; `both` says that more than one feed stood."""
        self.feeds = [feed]
        self.at = at
        self.both = both


class Sightings:
    """Follows events for a while, and counts; times are monotonic seconds.

    Args:
        names: What the feeds are called.

    Attributes:
        share: Which part of the events came by more than one feed of late, while more than one
            stood; None while too few have come to say.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start with nothing seen."""
        self.share: float | None = None
        self._counts = {name: _Count() for name in names}
        self._newer: dict[int, Sighting] = {}
        self._older: dict[int, Sighting] = {}
        self._turned = 0.0
        self._judged = self._judged_shared = 0

    def note(self, feed: str, key: int, now: float, *, both: bool) -> Sighting | None:
        """Take an event as it comes.

        Args:
            feed: Who brought it.
            key: Its identity's hash.
            now: Monotonic seconds.
            both: Whether more than one feed stands.

        Returns:
            When and by whom it came, if this is the first time that this feed brings it and another
            has before; else None.
        """
        if now >= self._turned + WINDOW or len(self._newer) >= MOST:
            self._turn(now)
        mine = self._counts[feed]
        seen = self._newer.get(key) or self._older.get(key)
        if seen is None:
            self._newer[key] = Sighting(feed, now, both=both)
            mine.seen += 1
            mine.first += 1
            return None
        if feed in seen.feeds:
            return None
        mine.seen += 1
        mine.lag += now - seen.at
        if len(seen.feeds) == 1:
            first = self._counts[seen.feeds[0]]
            first.shared += 1
            first.lead += now - seen.at
        seen.feeds.append(feed)
        return seen

    def came_since(self, key: int, since: float) -> bool:
        """Tell whether an event came for the first time since then."""
        seen = self._newer.get(key) or self._older.get(key)
        return seen is not None and seen.at >= since

    def lacks(self, feed: str, other: str, since: float) -> bool:
        """Tell whether a feed has not brought all that another brought, of what came since then."""
        return any(
            one.at >= since and other in one.feeds and feed not in one.feeds
            for sightings in (self._newer, self._older)
            for one in sightings.values()
        )

    def _turn(self, now: float) -> None:
        """Close the accounts of what a second copy is waited for no longer."""
        for one in self._older.values():
            shared = len(one.feeds) > 1
            if not shared:
                self._counts[one.feeds[0]].alone += 1
            if one.both:
                self._judged += 1
                self._judged_shared += shared
        self._older, self._newer, self._turned = self._newer, {}, now
        if self._judged >= JUDGED:
            self.share = self._judged_shared / self._judged
            self._judged = self._judged_shared = 0

    def stats(self, standing: Collection[str]) -> Mapping[str, FeedStats]:
        """Return a frozen snapshot, by feed; `standing` are those that stand now."""
        return {
            name: FeedStats(
                connected=name in standing,
                seen=one.seen,
                first=one.first,
                alone=one.alone,
                lead=one.lead / one.shared if one.shared else 0.0,
                lag=one.lag / (one.seen - one.first) if one.seen > one.first else 0.0,
            )
            for name, one in self._counts.items()
        }
