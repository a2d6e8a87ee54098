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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """A feed that is being spliced in: what is held back for it, in order of arrival."""

    number: int
    since: float
    proven: bool = False
    held: dict[int, Held] = field(default_factory=dict)
    by_device: dict[str | None, dict[int, Held]] = field(default_factory=dict)
    in_step: set[str | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Overtaken:
    """A device of which one feed brought these, and another may be behind them."""

    by: str
    keys: frozenset[int]
    until: float


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
        self._joining: dict[str, _Joining] = {}
        self._joined = 0
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
        others = self._standing - self._joining.keys() - {feed}
        self._standing.add(feed)
        before = self._joining.get(feed)  # what its last life left held stays in front
        if not others and before is None:
            return 0
        self._joined += 1
        self._joining[feed] = fresh = _Joining(self._joined, now)
        if before is not None:
            fresh.held, fresh.by_device = before.held, before.by_device
        self.watching = True
        return self._joined

    def lost(self, feed: str) -> list[str]:
        """Note that a feed stands no more.

        What is held back for it stays held.

        Returns:
            Those to splice in now, since no feed is left that they could wait for.
        """
        self._standing.discard(feed)
        left = self._standing - self._joining.keys()
        self._overtaken = {
            device: one for device, one in self._overtaken.items() if left - {one.by}
        }
        self._mind()
        return [] if left else list(self._joining)

    def number_of(self, feed: str) -> int:
        """Return the number of a feed's splice; 0 if it is not being spliced in."""
        joining = self._joining.get(feed)
        return 0 if joining is None else joining.number

    def is_proven(self, feed: str) -> bool:
        """Tell whether another feed brought something after this one stood that this one has too.

        Then the other has brought all that came before this one stood: nothing lies between them.
        """
        joining = self._joining.get(feed)
        return joining is not None and joining.proven

    def spliced(self, feed: str, now: float) -> list[Held]:
        """Hold nothing of this feed back any more; return what was, in order.

        From devices of which something was, the others' events may now come too late.
        """
        joining = self._joining.pop(feed, None)
        if joining is None:
            return []
        if self._standing - self._joining.keys() - {feed}:
            for device, waiting in joining.by_device.items():
                self._overtaken[device] = _Overtaken(feed, frozenset(waiting), now + STALE)
        self._mind()
        return list(joining.held.values())

    # Events

    def holds(self, feed: str, held: Held) -> bool:
        """Hold an event back if its feed may be ahead with it; tell whether it is held.

        Args:
            feed: Who brought it; no other feed has yet.
            held: The event.
        """
        joining = self._joining.get(feed)
        if joining is None or held.device in joining.in_step:
            return False
        joining.held.setdefault(held.key, held)
        joining.by_device.setdefault(held.device, {}).setdefault(held.key, held)
        return True

    def full(self, feed: str) -> bool:
        """Tell whether more is held back for a feed than should be."""
        joining = self._joining.get(feed)
        return joining is not None and len(joining.held) > MOST_HELD

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
        for name, joining in self._joining.items():
            waiting = joining.by_device.get(device)
            if name == feed or waiting is None or key not in waiting:
                continue
            del joining.by_device[device]
            joining.in_step.add(device)
            for one in waiting:
                del joining.held[one]
            at = list(waiting).index(key)
            events = list(waiting.values())
            found.append((name, events[:at], events[at:]))
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
        self.watching = bool(self._joining or self._overtaken)

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
            joining = self._joining.get(feed)
            if joining is not None and seen.at >= joining.since:
                joining.proven = True
        return turned

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
