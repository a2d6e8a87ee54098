"""Sightings: which feed brought an event first, and which brought it too.

Called by `feeds` with each event. How far a feed had come when it was lost shows in what it lacks
of that. A server that gives each event to one of two sessions only makes two feeds two halves: that
shows in how few events are seen on both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise, takewhile
from math import inf
from typing import Any, Final

from cti_listener.lives import KINDS, SURE, WINDOW, Life, Told
from cti_listener.values import read_time

KEPT: Final = 30.0
"""For how long, at least, a second copy of an event is waited for, in seconds.

A peer that fell silent is found dead some twelve seconds later, and what came in the `WINDOW`
before has to be known by then.
"""

MOST: Final = 200_000
"""How many events are followed so at once; with more, they are followed for less long."""

REPEATED: Final = 2
"""One event with which a feed begins may be an old one that the server repeats; so many are not."""

SECONDS: Final = 1000
"""How many seconds of the server's clock are looked at; of a recording, more of them go by."""

JUDGED: Final = 200
"""How many events on which more than one feed stood are enough to judge by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """What one feed brought; counts are since the start.

    Attributes:
        connected: Whether every subscription of it stands now.
        seen: Events it brought; what it repeats within half a minute is left out.
        first: Those that nobody had brought before.
        alone: Those that no other feed brought within half a minute, of these.
        lead: How far ahead of the other's copy its first ones were, on average, in seconds.
        lag: How far behind its copies were that came within half a minute, likewise.
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
    behind: int = 0  # with how many it was the second
    lag: float = 0.0


class Sighting:
    """An event: when it came first, and in which lives of feeds it came.

    The first of all, and the latest of each other feed or of this one if it came again.
    """

    __slots__ = ("at", "both", "known", "lives", "shared", "told")

    def __init__(
        self, life: Life, at: float, told: Told, *, both: bool, known: bool = False
    ) -> None:
        """Note who brought it.

        Args:
            life: In which life of its feed.
            at: When.
            told: When the server told it.
            both: More than one feed stood, so it shows whether they share.
            known: It came long before as well, and by whom is forgotten.
        """
        self.lives = [life]
        self.shared = False  # by more than one feed
        self.at = at
        self.told = told
        self.both = both and not known
        self.known = known

    def add(self, life: Life) -> bool:
        """Note that it came in another life; tell whether its feed had not brought it before."""
        lives, feed = self.lives, life.feed
        new = all(one.feed != feed for one in lives)
        self.lives = [lives[0], *(one for one in lives[1:] if one.feed != feed), life]
        self.shared = self.shared or new
        return new


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
        # When the first event came of each second of the server's clock.
        self._newer_seconds: dict[Any, float] = {}
        self._older_seconds: dict[Any, float] = {}
        # The furthest that is handled of each device, by kind, as far as events are followed.
        self._last: dict[str | None, dict[object, Sighting]] = {}
        self._turned = 0.0
        self._judged = self._judged_shared = 0

    def note(
        self, life: Life, key: int, told: Told, now: float, *, both: bool, known: bool = False
    ) -> Sighting | None:
        """Take an event as it comes.

        Args:
            life: Of the feed that brought it.
            key: Its identity's hash.
            told: When the server told it.
            now: Monotonic seconds.
            both: Whether more than one feed stands.
            known: Whether it was handled before, or an earlier run had it.

        Returns:
            When and by whom it came; None if this feed repeats it.
        """
        if now >= self._turned + KEPT or len(self._newer) >= MOST:
            self._turn(now)
        life.note(told, known=known)
        feed = life.feed
        mine = self._counts[feed]
        seen = self._newer.get(key) or self._older.get(key)
        if seen is None:
            self._newer[key] = seen = Sighting(life, now, told, both=both, known=known)
            if not known:
                self._newer_seconds.setdefault(told.time, now)
                life.latest.append(told)
            mine.seen += 1
            mine.first += not known
            return seen
        if life in seen.lives:
            return None
        shared = seen.shared
        if not seen.add(life):
            return None
        life.latest.append(told)
        mine.seen += 1
        mine.behind += 1
        mine.lag += now - seen.at
        life.met, life.behind = seen.at, now - seen.at
        ahead = seen.lives[0]
        ahead.met, ahead.behind = seen.at, 0.0
        if not shared:
            first = self._counts[ahead.feed]
            first.shared += 1
            first.lead += now - seen.at
        return seen

    def note_handled(self, device: str | None, key: int) -> None:
        """Note that an event of a device is handled for the first time."""
        seen = self._newer.get(key) or self._older.get(key)
        if seen is None:
            return
        lasts = self._last.setdefault(device, {})
        last = lasts.get(seen.told.kind)
        if last is None:
            if len(lasts) < KINDS:
                lasts[seen.told.kind] = seen
        elif last.told.is_passed_by(seen.told) or seen.lives[0] in last.lives:
            # On one feed the later one is further, though the server's clock were set back.
            lasts[seen.told.kind] = seen

    def is_behind(self, life: Life, device: str | None, told: Told) -> bool:
        """Tell whether a life brings an event where others have gone further with its device.

        They brought one that was told later, and that was handled; this life has yet to come to
        where that stands. Others began after this event was told, or were given less. Once the life
        has come as far, what is out of order is the server's own disorder.
        """
        return any(_is_behind(life, last, told) for last in self._last.get(device, {}).values())

    def came_since(self, key: int, since: float) -> bool:
        """Tell whether an event came for the first time since then."""
        seen = self._newer.get(key) or self._older.get(key)
        return seen is not None and seen.at >= since

    def reached(self, life: Life, until: float, alone_since: float) -> float:
        """Return how far a feed has come, at least: up to when it brought all that others brought.

        Where it lacks nothing, that is to the end, unless it was behind with the latest of them and
        has not stood alone for twice as long since: what happens then only itself can miss. Where
        it does, the last events that it brought of those that others were first with say how
        far it had come; if they are too few, since the other had just begun, or too old, it is
        taken to be behind by `WINDOW`. It never is by more.

        Args:
            life: Of which feed, and since when.
            until: When its last byte came.
            alone_since: Since when no other stands; infinite while one does.
        """
        earliest = min(until, max(life.since, until - WINDOW))
        last: Sighting | None = None  # of those in a row
        in_a_row, lacking = 0, False
        # What came while none but itself stood tells nothing of it.
        for one in () if alone_since <= earliest else self._latest_first(earliest):
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
        short = until - 2 * life.behind  # it may have been more by then
        return until if short >= alone_since else min(until, max(earliest, short, life.met))

    def told_until(self, life: Life, other: Life) -> float:
        """Return up to when a feed brought what the server told, going by the server's clock.

        Another began beside it. By so much as that clock went on from the last events of this one
        to the first of the other, and to what came since, has this one yet to come. The clock tells
        whole seconds, so it may be one more.

        Args:
            life: Of the feed. Of the last events that it brought the one told first counts.
            other: Of the other. What it brought first was told when it began, or later; but it may
                begin with an old event that the server repeats, so two of them must be later ones.

        Returns:
            Monotonic seconds, before the other began; minus infinity if the clock does not say.
        """
        mine = _moments(life.latest)
        if mine is None:
            return -inf
        come_to, seconds = min(mine), self._seconds()
        firsts = {first for few in other.firsts.values() for first in few}
        began = [at for one in firsts if (at := _moment(one.time)) is not None and at >= come_to]
        if len(began) < REPEATED:
            return -inf
        second = _length_of(seconds)
        later = [(other.since, max(began)), *(one for one in seconds if one[0] >= other.since)]
        return min(at - second * (1 + moment - come_to) for at, moment in later)

    def _seconds(self) -> list[tuple[float, float]]:
        """Return when the first event came of each second of the server's clock, and that second.

        In the order in which they came, in the last half minute at least.
        """
        latest = chain(reversed(self._newer_seconds.items()), reversed(self._older_seconds.items()))
        read = [(at, _moment(time)) for time, at in islice(latest, SECONDS)]
        return [(at, moment) for at, moment in reversed(read) if moment is not None]

    def came_to(self, life: Life, since: float) -> bool:
        """Tell whether a feed has come to where another began, then or later: it brought the same.

        Not only what the other was first with, so it shows too of one that is ahead. Some in a row
        are asked for: the other may bring old events that the server repeats.
        """
        in_a_row = 0
        for one in self._latest_first(since):
            if life in one.lives:
                began = any(other.since >= since for other in one.lives if other is not life)
                in_a_row = in_a_row + 1 if began else 0
                if in_a_row == SURE:
                    return True
        return False

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
            if not shared and not one.known:
                self._counts[one.lives[0].feed].alone += 1
            if one.both:
                self._judged += 1
                self._judged_shared += shared
        since = self._turned
        self._older, self._newer, self._turned = self._newer, {}, now
        self._older_seconds, self._newer_seconds = self._newer_seconds, {}
        followed = {
            device: {kind: one for kind, one in lasts.items() if one.at >= since}
            for device, lasts in self._last.items()
        }
        self._last = {device: lasts for device, lasts in followed.items() if lasts}
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
                lag=one.lag / one.behind if one.behind else 0.0,
            )
            for name, one in self._counts.items()
        }


def _moment(time: Any) -> float | None:
    """Return when the server told something, in seconds; None if what it wrote is no time."""
    read = read_time(time) if isinstance(time, str) else None
    return None if read is None else read.timestamp()


def _moments(latest: Collection[Told]) -> list[float] | None:
    """Return when the server told these; None if they are fewer than `SURE`, or one has no time.

    So many, since the least of them is asked for: any one may be odd.
    """
    found = [_moment(one.time) for one in latest]
    times = [one for one in found if one is not None]
    return times if len(times) == SURE else None


def _length_of(seconds: Sequence[tuple[float, float]]) -> float:
    """Return how long a second of the server's clock is by ours: one, but in a recording.

    That is the longest by any quarter of the time: a clock that is put forward or a backlog makes
    it shorter in one. Infinite while it is not known, or where the clock fell back.

    Args:
        seconds: When some came, and which, in the order in which they came.
    """
    if not seconds or (span := seconds[-1][0] - seconds[0][0]) < WINDOW:
        return inf
    starts = [seconds[0][0] + span * quarter / 4 for quarter in range(4)]
    marks = [*(seconds[bisect_left(seconds, (start,))] for start in starts), seconds[-1]]
    quarters = [(end - start, last - first) for (start, first), (end, last) in pairwise(marks)]
    return max(ours / its if its > 0 else inf for ours, its in quarters if ours > 0)


def _is_behind(life: Life, last: Sighting, told: Told) -> bool:
    if life in last.lives or last.told.precedes(told):
        return False
    kind = last.told.kind
    furthest = None if kind in life.unsure else life.furthest.get(kind)
    if furthest is None or furthest == last.told or furthest.is_far_from(last.told):
        furthest = told  # an odd time says nothing
    return furthest.precedes(last.told) and not told.is_far_from(last.told)
