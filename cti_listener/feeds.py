"""Several feeds of the same events: what each brings, and how one that comes back is spliced in.

Feeds that stand side by side need no care: each has every device's events in order, the first copy
to arrive is handled, and dedupe takes the others for repeats. A feed that comes back begins in the
middle. If it runs ahead of the others, what it brings must wait until they have brought what came
before it: `Feeds` holds its events back, device by device, until another feed has brought the first
that is held, or for a short time. What then comes too late all the same is told to be.

It also measures: a server that gives each event to one of two sessions only makes two feeds two
halves, and that shows in how few events are seen on both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

MOST_HELD: Final = 10_000
"""How many events are held back for one feed; with more, it is spliced in at once."""

WINDOW: Final = 10.0
"""For how long, at least, a second copy of an event is waited for in the counts, in seconds."""

MOST_COUNTED: Final = 200_000
"""How many events are followed so at once; with more, the window is shorter."""

JUDGED: Final = 200
"""How many events on which both feeds stood are enough to judge by."""

STALE: Final = 60.0
"""For how long an event is looked for that the other feed has overtaken, in seconds."""

APART: Final = 0.05
"""Feeds that share less than this part of their events are not two of one stream."""


class Held(NamedTuple):
    """An event that waits for its feed to be spliced in.

    Attributes:
        device: Whose it is.
        key: Its identity's hash.
        what: The caller's own.
    """

    device: str | None
    key: int
    what: Any


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


class _Sighting:
    """Who brought an event first, and whether somebody else has since."""

    __slots__ = ("at", "both", "feeds")

    def __init__(self, feed: str, at: float, *, both: bool) -> None:
        self.feeds = [feed]
        self.at = at
        self.both = both  # more than one feed stood


@dataclass(slots=True)
class _Joining:
    """A life of a feed that is being spliced in: what is held back for it, in order of arrival."""

    feed: str
    since: float
    proven: bool = False
    held: dict[int, Held] = field(default_factory=dict)
    by_device: dict[str | None, dict[int, Held]] = field(default_factory=dict)
    in_step: set[str | None] = field(default_factory=set)
    passed: set[str | None] = field(default_factory=set)  # others of theirs came past what is held


@dataclass(slots=True)
class _Overtaken:
    """A device of which one feed brought these in one life, and another may be behind them."""

    by: str
    life: int
    until: float
    keys: set[int] = field(default_factory=set)


class Feeds:
    """Holds back what would overtake, and measures; times are monotonic seconds.

    Args:
        names: What the feeds are called.

    Attributes:
        watching: Whether any feed is being spliced in, or anything may still come too late: else
            no event needs to be asked about.
        share: Which part of the events came by more than one feed of late, while more than one
            stood; None while too few have come to say.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start with none that stands."""
        self.watching = False
        self.share: float | None = None
        self._standing: set[str] = set()
        self._numbers = itertools.count(1)
        self._joining: dict[int, _Joining] = {}
        self._current: dict[str, int] = {}  # of feeds that stand; what a lost one left is held too
        # Spliced in, though no other has come as far as where they began; since when they stand.
        self._ahead: dict[str, tuple[int, float]] = {}
        self._overtaken: dict[str | None, _Overtaken] = {}
        self._counts = {name: _Count() for name in names}
        self._newer: dict[int, _Sighting] = {}
        self._older: dict[int, _Sighting] = {}
        self._turned = 0.0
        self._judged = self._judged_shared = 0

    def __repr__(self) -> str:
        held = sum(len(one.held) for one in self._joining.values())
        return f"<Feeds {sorted(self._standing)} standing, {held} events held back>"

    # Connections

    def stood(self, feed: str, now: float) -> int:
        """Note that a feed stands.

        Args:
            feed: Which one.
            now: Monotonic seconds.

        Returns:
            The number of its splice, if it has to be spliced in because others stand; else 0.
        """
        others = self._in_step()
        self._standing.add(feed)
        if not others:
            return 0
        self._current[feed] = number = next(self._numbers)
        self._joining[number] = _Joining(feed, now)
        self.watching = True
        return number

    def lost(self, feed: str) -> list[int]:
        """Note that a feed stands no more.

        What is held back for it stays held.

        Returns:
            The splices to end now, since no feed is left that they could wait for.
        """
        self._standing.discard(feed)
        self._current.pop(feed, None)
        left = self._in_step()
        self._ahead = {one: life for one, life in self._ahead.items() if left - {one}}
        self._overtaken = {
            device: one for device, one in self._overtaken.items() if left - {one.by}
        }
        self._mind()
        return [] if left else list(self._joining)

    def splice_of(self, feed: str) -> int:
        """Return the number of a feed's splice; 0 if it is not being spliced in."""
        return self._current.get(feed, 0)

    def is_proven(self, feed: str) -> bool:
        """Tell whether another feed brought something after this one stood that this one has too.

        Then the other has brought all that came before this one stood: nothing lies between them.
        """
        number = self._current.get(feed)
        return number is not None and self._joining[number].proven

    def spliced(self, number: int, now: float) -> list[tuple[Held, bool]]:
        """End a splice: hold nothing back for it any more.

        From devices of which something was held, the others' events may now come too late.

        Returns:
            What was held, in order, what an earlier life of its feed left first; and whether it is
            too late by now, since another event of its device has passed it.
        """
        ending = self._joining.get(number)
        if ending is None:
            return []
        feed = ending.feed
        if self._current.get(feed) == number:
            del self._current[feed]
            if self._in_step() - {feed} and not ending.proven:
                self._ahead[feed] = number, ending.since
        found: list[tuple[Held, bool]] = []
        for other, joining in list(self._joining.items()):
            if joining.feed == feed and other <= number:
                del self._joining[other]
                found += ((one, one.device in joining.passed) for one in joining.held.values())
                if self._in_step() - {feed}:
                    for device, waiting in joining.by_device.items():
                        self._overtaken[device] = _Overtaken(feed, other, now + STALE, set(waiting))
        self._mind()
        return found

    def _in_step(self) -> set[str]:
        return self._standing - self._current.keys()

    # Events

    def holds(self, feed: str, held: Held, now: float) -> bool:
        """Hold an event back if its feed may be ahead with it; tell whether it is held.

        Args:
            feed: Who brought it; no other feed has yet.
            held: The event.
            now: Monotonic seconds.
        """
        if feed in self._ahead:
            life, _ = self._ahead[feed]
            overtaken = self._overtaken.get(held.device)
            if overtaken is None or overtaken.life != life:
                overtaken = self._overtaken[held.device] = _Overtaken(feed, life, now + STALE)
            overtaken.keys.add(held.key)
        number = self._current.get(feed)
        joining = None if number is None else self._joining[number]
        if joining is None or held.device in joining.in_step:
            return False
        joining.held.setdefault(held.key, held)
        joining.by_device.setdefault(held.device, {}).setdefault(held.key, held)
        return True

    def full(self, feed: str) -> bool:
        """Tell whether more is held back for a feed than should be."""
        number = self._current.get(feed)
        return number is not None and len(self._joining[number].held) > MOST_HELD

    def released(
        self, feed: str, device: str | None, key: int
    ) -> list[tuple[str, list[Held], list[Held]]]:
        """Return what was held back for this event of another feed, which has come.

        Args:
            feed: Who brought it.
            device: Whose it is.
            key: Its identity's hash.

        Returns:
            By feed: what is too late by now, since it was held in front of the one that has come,
            and the others, in order.
        """
        found = []
        for joining in self._joining.values():
            waiting = joining.by_device.get(device)
            if joining.feed == feed or waiting is None:
                continue
            if key not in waiting:
                if joining.proven:  # else it may well be from before
                    joining.passed.add(device)
                continue
            del joining.by_device[device]
            joining.in_step.add(device)
            for one in waiting:
                del joining.held[one]
            at = list(waiting).index(key)
            events = list(waiting.values())
            found.append((joining.feed, events[:at], events[at:]))
        return found

    def is_late(self, feed: str, device: str | None, key: int, now: float, *, known: bool) -> bool:
        """Tell whether an event comes after such as should have followed it.

        Args:
            feed: Who brought it.
            device: Whose it is.
            key: Its identity's hash.
            now: Monotonic seconds.
            known: Whether it came before.
        """
        overtaken = self._overtaken.get(device)
        if overtaken is None or overtaken.by == feed:
            return False
        if key in overtaken.keys or now >= overtaken.until:
            del self._overtaken[device]  # the slower feed is where the faster one began
            self._mind()
            return False
        return not known

    def _mind(self) -> None:
        self.watching = bool(self._joining or self._overtaken or self._ahead)

    # Counts

    def count(self, feed: str, key: int, now: float) -> bool:
        """Count an event as it comes; tell whether `share` may be another by now."""
        turned = now >= self._turned + WINDOW or len(self._newer) >= MOST_COUNTED
        if turned:
            self._turn(now)
        mine = self._counts[feed]
        seen = self._newer.get(key) or self._older.get(key)
        if seen is None:
            self._newer[key] = _Sighting(feed, now, both=len(self._standing) > 1)
            mine.seen += 1
            mine.first += 1
        elif feed not in seen.feeds:
            mine.seen += 1
            mine.lag += now - seen.at
            if len(seen.feeds) == 1:
                first = self._counts[seen.feeds[0]]
                first.shared += 1
                first.lead += now - seen.at
            seen.feeds.append(feed)
            self._prove(feed, seen)
        return turned

    def _prove(self, feed: str, seen: _Sighting) -> None:
        """Learn from an event that two feeds brought: neither is behind where the other began."""
        number = self._current.get(feed)
        if number is not None and seen.at >= self._joining[number].since:
            self._joining[number].proven = True
        if self._ahead:
            for one in seen.feeds:
                if seen.at >= self._ahead.get(one, (0, inf))[1]:
                    del self._ahead[one]
                    self._mind()

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

    def stats(self) -> Mapping[str, FeedStats]:
        """Return a frozen snapshot, by feed."""
        return {
            name: FeedStats(
                connected=name in self._standing,
                seen=one.seen,
                first=one.first,
                alone=one.alone,
                lead=one.lead / one.shared if one.shared else 0.0,
                lag=one.lag / (one.seen - one.first) if one.seen > one.first else 0.0,
            )
            for name, one in self._counts.items()
        }
