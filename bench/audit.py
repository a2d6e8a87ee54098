"""What a server told, held against what handlers saw. Pure; `chaos` has the rules in words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from bench.stage import Books, Copy, Key, Told
from cti_listener.simulator import Life

BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)
DEVICE = 2
"""Where in a key the device stands."""

REMEMBERED = 1000
"""How many events of a device, at least, one that comes late is held against."""


class Span(NamedTuple):
    """From when to when, both included."""

    since: datetime
    until: datetime


class Spans:
    """Some spans of time, those that meet made one."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans: list[Span] = []
        for one in sorted(spans):
            if self._spans and one.since <= self._spans[-1].until:
                last = self._spans[-1]
                self._spans[-1] = Span(last.since, max(last.until, one.until))
            else:
                self._spans.append(one)
        self._begins = [one.since for one in self._spans]

    def __contains__(self, at: datetime) -> bool:
        return self.touch(Span(at, at))

    def touch(self, span: Span) -> bool:
        """Tell whether any of them has a moment in common with a span."""
        index = bisect_right(self._begins, span.until) - 1
        return index >= 0 and span.since <= self._spans[index].until

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def seconds(self, within: Span) -> float:
        """Return how much of a span they cover."""
        parts = (
            (min(one.until, within.until) - max(one.since, within.since)).total_seconds()
            for one in self._spans
        )
        return sum(part for part in parts if part > 0)

    def nearest(self, at: datetime) -> Span | None:
        """Return the span that is closest to a time."""

        def distance(one: Span) -> timedelta:
            return max(one.since - at, at - one.until)

        return min(self._spans, key=distance, default=None)


class Handled(NamedTuple):
    """One call of a handler.

    Attributes:
        key: Which event.
        received_at: When its bytes came.
        late: Whether it was marked as late.
        feed: Which one brought it.
    """

    key: Key
    received_at: datetime
    late: bool
    feed: str

    def follows(self, other: Handled) -> bool:
        """Tell whether it follows another by the server's own time, and number of its kind."""
        _, kind, _, serial, _, time, _ = self.key
        _, other_kind, _, other_serial, _, other_time, _ = other.key
        if time == other_time and kind == other_kind:
            return bool(serial > other_serial)
        return bool(time > other_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All there is to judge by.

    Attributes:
        told: The centre's stream; a happening's number is its place here.
        copies: What got out to whom.
        handled: Every call of the handler, in order.
        began: When the listener first said that it is connected.
        gaps: The named gaps in which events may be missing.
        outages: When one feed or another was not connected, by its own account.
        uncovered: When no server had a live subscription, by its own books.
        hold: Longer than this a feed must have been behind for its events to be late.
    """

    told: Sequence[Told]
    copies: Sequence[Copy]
    handled: Sequence[Handled]
    began: datetime
    gaps: Spans
    outages: Sequence[Span]
    hold: float = 0.0
    uncovered: Spans = field(default_factory=lambda: Spans(()))


@dataclass(slots=True, kw_only=True)
class Account:
    """What came of it: distinct events, but for `repeated`, which counts calls.

    Attributes:
        sent: Got out to at least one live subscription.
        handled: Handled at least once.
        in_gaps: Sent, not handled, and within a named gap.
        before: Sent, not handled, and before the listener was first connected.
        unaccounted: Sent, not handled, and nothing says so.
        repeated: Handled again.
        out_of_order: Handled before one of their device that arrived ahead of them.
        late: Handled and marked as late.
        early_late: Of these, those that were not behind for longer than the hold, though they were
            told while a server had a live subscription.
        idly_late: Of these, those that none of their device was handled before which was told
            later.
        disorderly_late: Late, and behind none but by time and number: just after an outage the
            server's own disorder cannot be told from that of the feeds. Without one it is idle.
        unknown: Handled and never told.
        findings: Sentences on the first of whatever is wrong.
        found: When that was told.
    """

    sent: int = 0
    handled: int = 0
    in_gaps: int = 0
    before: int = 0
    unaccounted: int = 0
    repeated: int = 0
    out_of_order: int = 0
    late: int = 0
    early_late: int = 0
    idly_late: int = 0
    disorderly_late: int = 0
    unknown: int = 0
    findings: list[str] = field(default_factory=list)
    found: list[datetime] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """How much is wrong that must never be."""
        order = self.out_of_order + self.early_late + self.idly_late
        return self.unaccounted + self.repeated + order + self.unknown


def heard(books: Books) -> list[Life]:
    """Return how far into the stream each session could hear.

    A server that lags writes old bytes until the connection ends, and what it was told meanwhile is
    in its hands then; and behind a message that ends the connection nothing is read, however much
    the server still writes. To that subscription all this is as if it had not lived.
    """
    last: dict[tuple[int, int], int] = {}
    for copy in books.copies:  # to one session in the order of the stream
        last[copy.server, copy.session] = copy.number
    found = []
    for server, lives in enumerate(books.lives):
        for life in lives:
            first = bisect_left(books.told, life.since, key=lambda one: one.at)
            stuck = max(first, last.get((server, life.session), -1) + 1)
            fatal = bisect_left(books.fatal, life.since)
            ends = [life.until or END, *books.fatal[fatal : fatal + 1]]
            ends += [one.at for one in books.told[stuck : stuck + 1]]
            found.append(replace(life, until=max(life.since, min(ends))))
    return found


class Audit:
    """Holds the one against the other."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._account = Account()
        self._down = Spans(evidence.outages)
        self._numbers: dict[Key, list[int]] = defaultdict(list)
        for number, told in enumerate(evidence.told):
            self._numbers[told.key].append(number)
        self._copies: dict[int, list[Copy]] = defaultdict(list)
        out: dict[int, set[int]] = defaultdict(set)
        for copy in evidence.copies:
            self._copies[copy.number].append(copy)
            out[copy.server].add(copy.number)
        self._out = [sorted(numbers) for numbers in out.values()]  # by each server

    def account(self) -> Account:
        """Return what came of it."""
        account, told = self._account, self._evidence.told
        times = Counter(one.key for one in self._evidence.handled)
        sent = {told[number].key for number in self._copies}
        account.sent = len(sent | times.keys())
        account.handled = len(times)
        for key, count in times.items():
            if key not in self._numbers:
                account.unknown += 1
                self._find("unknown", key)
            if count > 1:
                account.repeated += count - 1
                self._find(f"handled {count} times", key)
        for key in sent - times.keys():
            self._judge_missing(key)
        self._judge_order()
        return account

    # What was not handled

    def _judge_missing(self, key: Key) -> None:
        account, began = self._account, self._evidence.began
        copies = [copy for number in self._numbers[key] for copy in self._copies[number]]
        if any(self._surely_arrived(copy) for copy in copies):
            account.unaccounted += 1
            self._find("unaccounted", key)
        elif any(self._lies_in_gap(copy) for copy in copies):
            account.in_gaps += 1
        elif any(copy.at < began for copy in copies):
            account.before += 1
        else:
            account.unaccounted += 1
            self._find("lost by a feed, in no gap", key)

    def _lies_in_gap(self, copy: Copy) -> bool:
        """Tell whether there was a named gap while this copy was on its way.

        It was lost with its session, somewhere between when it was told and when it got out.
        """
        told = self._evidence.told[copy.number].at
        return self._evidence.gaps.touch(Span(told, max(told, copy.at)))

    # In which order

    def _judge_order(self) -> None:
        evidence, account = self._evidence, self._account
        before: dict[object, list[tuple[int, Handled]]] = defaultdict(list)  # by device, in turn
        for one in evidence.handled:
            if one.key not in self._numbers:
                continue
            earlier = before[one.key[DEVICE]]
            last = max((place for place, _ in earlier), default=-1)
            places = self._places(one)
            if one.late:
                account.late += 1
                self._judge_late(one, last, earlier)
                continue
            place = next((place for place in places if place > last), None)
            if place is None and not self._is_excused(one, places[-1], earlier):
                account.out_of_order += 1
                behind = next(other for at, other in earlier if at == last)
                self._find(f"came as number {places}, after number {last}", one.key)
                self._find("which is", behind.key)
                continue
            earlier.append((places[-1] if place is None else place, one))
            if len(earlier) > 2 * REMEMBERED:
                del earlier[:REMEMBERED]

    def _is_excused(self, one: Handled, place: int, earlier: Sequence[tuple[int, Handled]]) -> bool:
        """Tell whether it follows, by number, all that should have followed it, of another feed."""
        passed = [other for at, other in earlier if at > place]
        return all(other.feed != one.feed and one.follows(other) for other in passed)

    def _places(self, one: Handled) -> list[int]:
        """Return its number when it was told first, and of the copies that may have arrived first.

        None that was told after this one had come, and none behind one that had surely arrived by
        then: what got out while every feed was connected. One that never got out has not arrived,
        but for the last bytes of a connection, of which the server cannot know.
        """
        evidence = self._evidence
        told = [n for n in self._numbers[one.key] if evidence.told[n].at <= one.received_at]
        last = self._last_out(one.received_at)
        places = [n for n in told if n in self._copies or n == told[0] or n > last]
        for index, number in enumerate(places):
            copies = self._copies.get(number, ())
            if any(one.received_at >= copy.at and self._surely_arrived(copy) for copy in copies):
                return places[: index + 1]
        return places

    def _last_out(self, at: datetime) -> int:
        """Return behind which number a server may have had bytes out by then that it knew not of.

        What it knows to be out it knows in order, so they can only be behind the last of that.
        """
        told = bisect_right(self._evidence.told, at, key=lambda one: one.at)
        known = ((out, bisect_left(out, told)) for out in self._out)
        return min((out[index - 1] if index else -1 for out, index in known), default=-1)

    def _surely_arrived(self, copy: Copy) -> bool:
        return copy.at >= self._evidence.began and copy.at not in self._down

    def _judge_late(self, one: Handled, last: int, earlier: Sequence[tuple[int, Handled]]) -> None:
        """Ask whether the mark is deserved, and whether waiting would have spared it."""
        evidence, account = self._evidence, self._account
        told = evidence.told[self._numbers[one.key][0]].at
        if all(place > last for place in self._places(one)):
            passed = [other for _, other in earlier if other.follows(one)]
            since = min((other.received_at for other in passed), default=one.received_at)
            if passed and self._down.touch(Span(since, one.received_at)):
                account.disorderly_late += 1
            else:
                account.idly_late += 1
                self._find(f"late, and behind nothing: the one before is number {last}", one.key)
            return
        behind = (one.received_at - told).total_seconds()
        if behind < evidence.hold and told not in evidence.uncovered:
            account.early_late += 1
            self._find(f"late, and only {behind:.3f} s behind", one.key)

    # Telling

    def _find(self, what: str, key: Key, *, most: int = 10) -> None:
        if len(self._account.findings) >= most:
            return
        _, _, device, serial, name, time, _ = key
        words = [f"{what}: {device} {name} {serial} ({time})"]
        for number in self._numbers.get(key, ()):
            self._account.found.append(self._evidence.told[number].at)
            told = f"number {number} told at {self._evidence.told[number].at:%H:%M:%S.%f}"
            out = [self._tell(copy) for copy in self._copies.get(number, ())]
            words += [f"{told}, {one}" for one in out or ["out to nobody"]]
        times = [one.received_at for one in self._evidence.handled if one.key == key]
        words += [f"handled, received at {at:%H:%M:%S.%f}" for at in times]
        self._account.findings.append("\n      ".join(words))

    def _tell(self, copy: Copy) -> str:
        where = f"out to {'ab'[copy.server]}{copy.session}"
        parts: Mapping[str, Spans] = {
            "gap": self._evidence.gaps,
            "outage": self._down,
        }
        near = [
            f"nearest {name} {span.since:%H:%M:%S.%f} to {span.until:%H:%M:%S.%f}"
            for name, spans in parts.items()
            if (span := spans.nearest(copy.at)) is not None
        ]
        return ", ".join([f"{where} at {copy.at:%H:%M:%S.%f}", *near])
