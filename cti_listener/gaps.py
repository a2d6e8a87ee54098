"""The ledger of what may have been missed.

The pipeline tells it when a feed begins to bring events and when one is lost; it answers with the
gaps to send round. A gap is told at once, and completed here when the first event after it comes.

What is missed is what no feed covers: the complement of the union of the feeds' times. A loss is
noticed after the fact (a peer that went silent, by some twelve seconds), so a feed's time ends in
the past, and a gap may turn out that is closed already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final, get_args

from cti_listener.notices import Gap, GapReason
from cti_listener.values import EventKey

KEPT: Final = 1000
"""How many gaps the ledger remembers; the oldest are forgotten first."""

LIVES: Final = 1000
"""How many past lives of feeds are remembered; to forget one can only make a gap longer."""


ON_ITS_WAY: Final = timedelta(seconds=0.1)
"""For so long what happens may be on its way to every feed alike. Who is lost so soon after another
may have lacked what that one lost; and so may who began to stand so soon before."""


LAST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Loss:
    since: datetime
    reason: GapReason
    last_before: EventKey | None
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Life:
    """When a feed covered what happened, and how that ended.

    Attributes:
        since: From when.
        until: Until when.
        reason: Why no longer.
        silent: When its last byte came; None: then.
    """

    since: datetime
    until: datetime
    reason: GapReason
    silent: datetime | None = None


@dataclass(slots=True)
class Coverage:
    """What the feeds covered since a time from which nothing is left to settle."""

    settled: datetime
    up: dict[str, datetime] = field(default_factory=dict)
    past: list[_Life] = field(default_factory=list)

    def holes(self, reason: GapReason) -> tuple[list[_Life], _Life | None]:
        """Find what nobody covers: holes that are over, and the one that is open."""
        over: list[_Life] = []
        lives = sorted(self.past, key=lambda life: life.since)
        at = sure = self.settled  # covered until then; and so that nothing was on its way
        up = min(self.up.values(), default=None)
        for life in lives if up is None else (*lives, _Life(up, LAST, reason)):
            if up is not None and up <= max(sure, life.since) and life.until < LAST:
                continue  # from there on somebody covers all
            if life.since > sure:
                since = self._since(at) if life.since > at else sure
                over.append(_Life(since, life.since, reason))
            if life.until > at:
                at, reason = life.until, life.reason
                sure = max(sure, life.since, at - ON_ITS_WAY)
        return over, _Life(self._since(at), at, reason) if up is None else None

    def _since(self, end: datetime) -> datetime:
        """Return since when something may be missed, if the last feed was lost then."""
        least = end - ON_ITS_WAY
        lost = (
            max(one.until, least)
            for one in self.past
            if one.until <= end and (one.silent or one.until) >= least
        )
        return min(lost, default=end)

    def end(self, feed: str, until: datetime, reason: GapReason, silent: datetime | None) -> None:
        """Note that a feed covers no more, since then."""
        since = self.up.pop(feed, None)
        if since is not None:
            self.past.append(_Life(since, max(since, until), reason, silent))
            del self.past[:-LIVES]

    def turned_out(self, reason: GapReason) -> tuple[list[_Life], _Life | None]:
        """Find what nobody covers, which is told now: hold it as said."""
        over, still = self.holes(reason)
        for hole in (*over, *([still] if still else ())):
            self.settle(hole.until)
        self.settle_what_is_known()
        return over, still

    def copy(self) -> Coverage:
        """Return what may be changed without changing this."""
        return Coverage(self.settled, dict(self.up), list(self.past))

    def settle(self, until: datetime) -> None:
        """Hold everything before as said."""
        self.settled = max(self.settled, until)
        self.past = [life for life in self.past if (life.silent or life.until) > self.settled]

    def settle_what_is_known(self) -> None:
        """Hold everything as said that was before any feed which stands: no life of it goes on."""
        if self.up:
            self.settle(min(self.up.values()))


class GapLedger:
    """Remembers the gaps, open ones included.

    Args:
        keep: Called with each gap that is opened, closed or completed.

    Attributes:
        apart: The feeds bring different events, so the loss of each is a gap.
        awaiting: Whether a gap still lacks its first event after; spares the hot path a call.
        counts: How many gaps began in this run, by reason.
    """

    def __init__(self, keep: Callable[[Gap], None] = lambda _gap: None) -> None:
        """Start with nothing missed: before the first connection there was nothing to miss."""
        self.apart = False
        self.awaiting = False
        self.counts: dict[GapReason, int] = dict.fromkeys(get_args(GapReason), 0)
        self._tell_keeper = keep
        self._last_counted = 0
        self._ids = count(1)
        self._closed: deque[Gap] = deque(maxlen=KEPT)
        self._awaiting_before: tuple[Gap, ...] = ()  # of runs before
        self._lost: list[tuple[int, _Loss]] = []  # more than one where runs before left some open
        self._refused: dict[str, tuple[int, _Loss]] = {}
        self._left_refused: set[str] = set()  # by the run before, and not heard of since
        self._coverage: Coverage | None = None  # None before the first feed stood
        self._catching_up: set[str] = set()  # feeds whose broker kept what came
        self._lost_apart: dict[str, tuple[int, _Loss]] = {}

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Every gap remembered, the open ones last, with `until` None."""
        open_ones = [_open(*entry) for entry in self._lost]
        open_ones += [_open(*entry) for entry in self._lost_apart.values()]
        open_ones += [_open(*entry, name) for name, entry in self._refused.items()]
        return (*self._closed, *open_ones)

    @property
    def missing_since(self) -> datetime | None:
        """Since when all is missed; None: it is not."""
        return min((loss.since for _, loss in self._lost), default=None)

    def resume(
        self,
        last_id: int,
        left_open: Sequence[Gap],
        last_sign: datetime | None,
        last_before: EventKey | None,
        awaiting: Sequence[Gap] = (),
    ) -> None:
        """Go on where an earlier run ended: what it left open is open, and so is its absence.

        Args:
            last_id: The highest id it gave.
            left_open: The gaps it left open.
            last_sign: Its last sign of life; None: it had none, so nothing was missed.
            last_before: The last event it had.
            awaiting: The gaps of runs before that lack their first event after.
        """
        self._awaiting_before = tuple(awaiting)
        self.awaiting = bool(awaiting)
        self._ids = count(last_id + 1)
        self._last_counted = last_id
        for gap in left_open:
            loss = _Loss(gap.since, gap.reason, gap.last_before, gap.devices)
            if gap.destination is None:
                self._lost.append((gap.id, loss))
            else:
                self._refused[gap.destination] = gap.id, loss
                self._left_refused.add(gap.destination)
        absent = any(loss.reason == "listener_down" for _, loss in self._lost)
        if last_sign is not None and not absent:  # else the absence of runs before goes on
            self._open(_Loss(last_sign, "listener_down", last_before))

    # Feeds

    def covers(self, feed: str, since: datetime, *, backlog: bool = False) -> list[Gap]:
        """Note that a feed brings everything that happens from then on; return the gaps it closes.

        Args:
            feed: Which one.
            since: From when.
            backlog: What came meanwhile was kept for it and is on its way: nothing is closed before
                `caught_up`, by whichever feed.
        """
        if self._coverage is None:
            self._coverage = Coverage(since)
        self._coverage.up[feed] = since
        if backlog and self._lost:
            self._catching_up.add(feed)
        if self._catching_up:
            return []
        entry = self._lost_apart.pop(feed, None)
        return [*([self._close(entry, since)] if entry else ()), *self._regained(since)]

    def caught_up(
        self, feed: str, *, recovered: bool, overflowed: datetime | None = None
    ) -> list[Gap]:
        """Note that the backlog of a feed is in; return the gaps that closes.

        Args:
            feed: Which one.
            recovered: Whether it held everything: else it was too old, or had overflowed.
            overflowed: Until when the broker may have dropped some of it; None: it did not.
        """
        if self._coverage is None or feed not in self._coverage.up:
            return []
        since = min(self._coverage.up.values())
        until = max(since, overflowed or since)
        if feed in self._catching_up:
            self._catching_up.clear()
            return self._regained(until, recovered=recovered)
        if self._lost or overflowed is None or len(self._coverage.up) > 1:
            return []
        # Nothing was missed before it stood, and so no gap is open; what came last, came since.
        return [self._close((next(self._ids), _Loss(since, "slow_consumer", None)), until)]

    def lost(
        self,
        feed: str,
        since: datetime,
        reason: GapReason,
        last_before: EventKey | None,
        *,
        silent: datetime | None = None,
    ) -> list[Gap]:
        """Note that a feed covers no more from then on; return the gaps that turn out to be over.

        One that goes on is open: see `gaps`.

        Args:
            feed: Which one.
            since: From when.
            reason: Why.
            last_before: The last event before.
            silent: When its last byte came, if that was later: then it was behind.
        """
        self._catching_up.discard(feed)
        if self._coverage is None:
            return []
        self._coverage.end(feed, since, reason, silent)
        if self._lost:  # of a gap that is open already, this is a part
            up = min(self._coverage.up.values(), default=None)
            return [] if up is None or self._catching_up else self._regained(up)
        if self.apart and self._coverage.up:
            entry = next(self._ids), _Loss(since, reason, last_before)
            self._lost_apart[feed] = entry
            self._keep(_open(*entry))
            self._coverage.settle_what_is_known()
            return []
        over, still = self._coverage.turned_out(reason)
        # The last event may have come behind a hole that is over; what came before it is not known.
        told = [
            self._close((next(self._ids), _Loss(hole.since, hole.reason, None)), hole.until)
            for hole in over
        ]
        if still is not None:
            self._open(_Loss(still.since, still.reason, last_before))
        return told

    def covered(self, until: Mapping[str, datetime], silent: Mapping[str, datetime]) -> datetime:
        """Return since when something is missed if all feeds that stand are lost now.

        Args:
            until: Up to when each covers what happens; at least one.
            silent: When its last byte came.
        """
        if self._coverage is None or self.apart:  # then each one's loss is a gap
            return min(until.values())
        coverage = self._coverage.copy()
        for feed, at in until.items():
            coverage.end(feed, at, "listener_down", silent[feed])
        over, still = coverage.holes("listener_down")
        holes = over if still is None else [*over, still]
        return min(hole.since for hole in holes)

    def _regained(self, at: datetime, *, recovered: bool = False) -> list[Gap]:
        entries, self._lost = self._lost, []
        if self._coverage is not None and entries:
            self._coverage.settle(at)
        return [self._close(entry, at, recovered=recovered) for entry in entries]

    # Destinations, counters, messages

    def refused(
        self,
        destination: str,
        since: datetime,
        last_before: EventKey | None,
        devices: frozenset[str] = frozenset(),
    ) -> None:
        """Note that a destination is refused; once is enough."""
        self._left_refused.discard(destination)
        if destination not in self._refused:
            entry = next(self._ids), _Loss(since, "refused", last_before, devices)
            self._refused[destination] = entry
            self._keep(_open(*entry, destination))

    def accepted(self, destination: str, at: datetime) -> Gap | None:
        """Note that a refused destination was taken after all, or is wanted no more."""
        entry = self._refused.pop(destination, None)
        return self._close(entry, at, destination=destination) if entry else None

    def no_longer_refused(self, at: datetime) -> list[Gap]:
        """Close what an earlier run left refused and this one was not; call when all stands."""
        names, self._left_refused = sorted(self._left_refused), set()
        return [gap for name in names if (gap := self.accepted(name, at))]

    def restarted(
        self, since: datetime, at: datetime, last_before: EventKey | None, first_after: EventKey
    ) -> Gap:
        """Note that the server restarted its counter between two events."""
        loss = _Loss(since, "server_restarted", last_before)
        return self._close((next(self._ids), loss), at, first_after=first_after)

    def left_out(self, at: datetime, last_before: EventKey | None) -> Gap:
        """Note that a message was too large to be taken, and the connection lives."""
        return self._close((next(self._ids), _Loss(at, "oversized", last_before)), at)

    def note(self, event: EventKey) -> None:
        """Complete the gaps that await their first event after."""
        self.awaiting = False
        for gap in self._awaiting_before:
            self._keep(replace(gap, first_after=event))
        self._awaiting_before = ()
        for index, gap in enumerate(self._closed):
            if gap.first_after is None:
                self._closed[index] = completed = replace(gap, first_after=event)
                self._keep(completed)

    # Private

    def _keep(self, gap: Gap) -> None:
        """Have a gap kept, or what became of it; one that is new is counted."""
        if gap.id > self._last_counted:
            self._last_counted = gap.id
            self.counts[gap.reason] += 1
        self._tell_keeper(gap)

    def _open(self, loss: _Loss) -> None:
        entry = next(self._ids), loss
        self._lost.append(entry)
        self._keep(_open(*entry))

    def _close(
        self,
        entry: tuple[int, _Loss],
        at: datetime,
        *,
        first_after: EventKey | None = None,
        destination: str | None = None,
        recovered: bool = False,
    ) -> Gap:
        number, loss = entry
        gap = Gap(
            at=at,
            id=number,
            since=loss.since,
            until=max(at, loss.since),
            reason=loss.reason,
            devices=loss.devices,
            destination=destination,
            recovered=recovered,
            last_before=loss.last_before,
            first_after=first_after,
        )
        self._closed.append(gap)
        self.awaiting = self.awaiting or first_after is None
        self._keep(gap)
        return gap


def _open(number: int, loss: _Loss, destination: str | None = None) -> Gap:
    return Gap(
        at=loss.since,
        id=number,
        since=loss.since,
        until=None,
        reason=loss.reason,
        devices=loss.devices,
        destination=destination,
        last_before=loss.last_before,
    )
