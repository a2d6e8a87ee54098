"""Sightings: which feed brought an event first, and which brought it too.

Called by `feeds` with each event. How far a feed had come when it was lost shows in what it lacks
of that. A server that gives each event to one of two sessions only makes two feeds two halves: that
shows in how few events are seen on both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from math import inf
from typing import Final, NamedTuple

WINDOW: Final = 10.0
"""By no more than this, in seconds, is a feed taken to be behind."""

KEPT: Final = 30.0
"""For how long, at least, a second copy of an event is waited for, in seconds.

A peer that fell silent is found dead some twelve seconds later, and what came in the `WINDOW`
before has to be known by then.
"""

MOST: Final = 200_000
"""How many events are followed so at once; with more, they are followed for less long."""

JUDGED: Final = 200
"""How many events on which more than one feed stood are enough to judge by."""

SURE: Final = 5
"""After so many of another's events, one behind the other, a feed has come as far as that.

One is not enough: it may be an old event that the server repeated to the other.
"""

BEHIND: Final = 0.05
"""By more than that, in seconds, a feed is behind another, and may be more so with each event."""

FIRSTS: Final = 3
"""By so many events of each kind it is told where a feed began."""

KINDS: Final = 10
"""So many kinds are told apart in that; there are two."""


class Told(NamedTuple):
    """When and as what number the server told an event; each kind is counted on its own.

    Attributes:
        time: As received; only compared, and equal for a whole second.
        kind: `agent` or `csta`.
        serial: The number.
    """

    time: object
    kind: object
    serial: object

    def precedes(self, other: Told) -> bool:
        """Tell whether the server surely told this one before the other."""
        mine, theirs = self.time, other.time
        if isinstance(mine, str) and isinstance(theirs, str) and mine != theirs:
            return mine < theirs
        if self.kind != other.kind:
            return False
        number, after = self.serial, other.serial
        return isinstance(number, int) and isinstance(after, int) and number < after


@dataclass(slots=True, eq=False)
class Life:
    """A time in which a feed stood.

    Attributes:
        feed: Which one.
        since: When that began.
        until: When its last byte came; None while it stands.
        met: When the latest event came first that it and another brought.
        behind: How much later it brought that one; 0 if it was the first.
        firsts: The first events it brought, by kind.
        furthest: The one told last of those it brought, by kind.
    """

    feed: str
    since: float
    until: float | None = None
    met: float = -inf
    behind: float = 0.0
    firsts: dict[object, list[Told]] = field(default_factory=dict)
    furthest: dict[object, Told] = field(default_factory=dict)

    def note(self, told: Told) -> None:
        """Take note of an event."""
        firsts = self.firsts.get(told.kind)
        if firsts is None:
            if len(self.firsts) < KINDS:
                self.firsts[told.kind], self.furthest[told.kind] = [told], told
            return
        if len(firsts) < FIRSTS:
            firsts.append(told)
        if self.furthest[told.kind].precedes(told):
            self.furthest[told.kind] = told

    def began_after(self, told: Told, at: float) -> bool:
        """Tell whether an event was told before this began: it is not missed here.

        Another feed brought it first at that time: soon after this began, or it is no such event.
        An odd time among the first ones, or a server's clock that was set back, would else hide
        whatever is missed here as long as it stands.
        """
        return at <= self.since + WINDOW and any(
            told.precedes(first) for firsts in self.firsts.values() for first in firsts
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """What one feed brought; counts are since the start.

    Attributes:
        connected: Whether every subscription of it stands now.
        seen: Events it brought, its own repeats left out.
        first: Those that no other feed had brought before.
        alone: Those that no other feed brought within half a minute.
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
    """An event: when it came first, and in which lives of feeds it came, the first one first."""

    __slots__ = ("at", "both", "lives", "told")

    def __init__(self, life: Life, at: float, told: Told, *, both: bool) -> None:
        """Note who brought it; `both` says that more than one feed stood."""
        self.lives = [life]
        self.at = at
        self.told = told
        self.both = both

    @property
    def feeds(self) -> Collection[str]:
        """Which feeds brought it, the first one first."""
        return dict.fromkeys(life.feed for life in self.lives)

    @property
    def shared(self) -> bool:
        """Whether more than one feed brought it."""
        return len(self.lives) > 1 and len(self.feeds) > 1


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
        self._last: dict[str | None, Sighting] = {}  # handled of each device, as far as followed
        self._turned = 0.0
        self._judged = self._judged_shared = 0

    def note(self, life: Life, key: int, told: Told, now: float, *, both: bool) -> Sighting | None:
        """Take an event as it comes.

        Args:
            life: Of the feed that brought it.
            key: Its identity's hash.
            told: When the server told it.
            now: Monotonic seconds.
            both: Whether more than one feed stands.

        Returns:
            When and by whom it came; None if this feed repeats it.
        """
        if now >= self._turned + KEPT or len(self._newer) >= MOST:
            self._turn(now)
        life.note(told)
        feed = life.feed
        mine = self._counts[feed]
        seen = self._newer.get(key) or self._older.get(key)
        if seen is None:
            self._newer[key] = seen = Sighting(life, now, told, both=both)
            mine.seen += 1
            mine.first += 1
            return seen
        if life in seen.lives:
            return None
        repeated, shared = feed in seen.feeds, seen.shared
        seen.lives.append(life)
        if repeated:
            return None
        mine.seen += 1
        mine.lag += now - seen.at
        life.met, life.behind = seen.at, now - seen.at
        ahead = seen.lives[0]
        ahead.met, ahead.behind = seen.at, 0.0
        if not shared:
            first = self._counts[ahead.feed]
            first.shared += 1
            first.lead += now - seen.at
        return seen

    def handled(self, device: str | None, key: int) -> None:
        """Note that an event of a device is handled."""
        seen = self._newer.get(key) or self._older.get(key)
        last = self._last.get(device)
        if seen is not None and (last is None or last.told.precedes(seen.told)):
            self._last[device] = seen

    def is_behind(self, life: Life, device: str | None, told: Told) -> bool:
        """Tell whether a life brings what was told before an event that it has yet to bring.

        Others brought and had that handled: they began after this one was told, or were given less.
        Once the life has come as far as that, what is out of order is the server's own disorder.
        """
        last = self._last.get(device)
        if last is None or life in last.lives or last.told.precedes(told):
            return False
        furthest = life.furthest.get(last.told.kind)
        if furthest is None or furthest == last.told:
            return told.precedes(last.told)
        return furthest.precedes(last.told)

    def came_since(self, key: int, since: float) -> bool:
        """Tell whether an event came for the first time since then."""
        seen = self._newer.get(key) or self._older.get(key)
        return seen is not None and seen.at >= since

    def reached(self, life: Life, until: float) -> float:
        """Return how far a feed has come, at least: up to when it brought all that others brought.

        Where it lacks nothing, that is to the end, unless it was behind with the latest of them.
        Where it does, the last events that it brought of those that others were first with say how
        far it had come; if they are too few, since the other had just begun, or too old, it is
        taken to be behind by `WINDOW`. It never is by more.

        Args:
            life: Of which feed, and since when.
            until: When its last byte came.
        """
        earliest = min(until, max(life.since, until - WINDOW))
        last: Sighting | None = None  # of those in a row
        in_a_row, lacking = 0, False
        for one in self._latest_first(earliest):
            if one.lives[0] is life or one.at > until:
                continue
            if last is not None and one.lives[0] is not last.lives[0]:
                last, in_a_row = None, 0
            if life in one.lives:
                last, in_a_row = last or one, in_a_row + 1
                if in_a_row == SURE:
                    # The last bytes of a connection may have been read after the last we know of.
                    if not lacking:
                        break
                    end = last.lives[0].until
                    return max(earliest, last.at if end is None else min(last.at, end))
            elif not life.began_after(one.told, one.at):
                last, in_a_row, lacking = None, 0, True
        if lacking:
            return earliest
        if life.behind > BEHIND and life.met >= earliest:
            return life.met
        return max(earliest, until - 2 * life.behind)  # it may have been more by then

    def stood_in_name(self, since: float) -> None:
        """Note that only one feed brought anything since then: nothing is shown by what it did."""
        for one in self._latest_first(since):
            one.both = False

    def _latest_first(self, since: float) -> Iterator[Sighting]:
        every = chain(reversed(self._newer.values()), reversed(self._older.values()))
        return takewhile(lambda one: one.at >= since, every)

    def _turn(self, now: float) -> None:
        """Close the accounts of what a second copy is waited for no longer."""
        for one in self._older.values():
            shared = one.shared
            if not shared:
                self._counts[one.lives[0].feed].alone += 1
            if one.both:
                self._judged += 1
                self._judged_shared += shared
        since = self._turned
        self._older, self._newer, self._turned = self._newer, {}, now
        self._last = {device: one for device, one in self._last.items() if one.at >= since}
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
