"""Where we stand: what becomes of the feeds' connections, and what may be missing because of it.

The pipeline has the sources' words about connections told here; they become notices, and entries of
the gap ledger. Notices go out by `tell`, which keeps them in order with the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from cti_listener.clock import Clock
from cti_listener.errors import CertificateError, ConnectError, RefusedError
from cti_listener.gaps import Coverage, GapLedger
from cti_listener.interest import Interest
from cti_listener.log import log
from cti_listener.notices import (
    Connected,
    Disconnected,
    Gap,
    GapReason,
    Notice,
    SubscriptionRefused,
)
from cti_listener.stats import Outcome, Stand
from cti_listener.values import EventKey


def _outcome(error: ConnectError) -> Outcome:
    match error:
        case CertificateError():
            return "untrusted"
        case RefusedError():
            return "refused"
        case _:
            return "failed"


@dataclass(slots=True)
class _Refusal:
    """A destination that some feeds are refused.

    Attributes:
        feeds: Those.
        having: What of its events the others cover, since it was refused first.
    """

    feeds: set[str]
    having: Coverage

    def covers(self, feed: str, since: datetime) -> None:
        """Note that a feed has it from then on, unless it is refused it."""
        if feed not in self.feeds:
            if not self.having.up:
                self.having.settle(since)  # what was missed till then is told
            self.having.up[feed] = since

    def lost(self, feed: str, until: datetime, reason: GapReason, silent: datetime) -> None:
        """Note that a feed has it no more since then."""
        began = self.having.up.get(feed)
        if reason == "refused" and began is not None and began < self.having.settled:
            del self.having.up[feed]  # it may be this that it was refused, and never had
        else:
            self.having.end(feed, until, reason, silent)


class Standing:
    """Knows which feeds stand, and keeps the gap ledger.

    Args:
        interest: Who was asked for.
        clock: The one clock.
        tell: Puts a notice behind all that was received before it.
        keep: Called with each gap that is opened, closed or completed.

    Attributes:
        ledger: What may have been missed.
        stands: The feeds that stand now, the one that has stood longest first.
        heard_of: The feeds that ever stood.
        first: Done when the first of them stands.
        attempts, connections: Counts since the start.
        outcomes: How the attempts ended.
        disconnects: Subscribed connections that ended, by reason.
        url: The endpoint that stands, or stood last.
    """

    def __init__(
        self,
        interest: Interest,
        clock: Clock,
        *,
        tell: Callable[[Notice], None],
        keep: Callable[[Gap], None],
    ) -> None:
        """Start with no connection."""
        self.ledger = GapLedger(keep)
        self.stands: dict[str, Stand] = {}
        self.heard_of: set[str] = set()
        self.first: asyncio.Future[None] | None = None
        self.attempts = self.connections = 0
        self.outcomes: dict[Outcome, int] = dict.fromkeys(get_args(Outcome), 0)
        self.disconnects: dict[GapReason, int] = dict.fromkeys(get_args(GapReason), 0)
        self.url: str | None = None
        self._interest = interest
        self._clock = clock
        self._tell = tell
        self._refusing: dict[str, _Refusal] = {}  # by destination

    # Connections

    def subscribed(self, url: str, *, feed: str, confirmed: bool, attempts: int) -> None:
        """Every destination stands that is not refused: tell it."""
        now = self._clock.now()
        self.attempts += 1
        self.connections += 1
        self.outcomes["subscribed"] += 1
        self.url = url
        self.stands[feed] = Stand(url, now)
        self.heard_of.add(feed)
        log.info("connected", feed=feed, url=url, confirmed=confirmed, attempts=attempts)
        self._tell(Connected(at=now, feed=feed, url=url, confirmed=confirmed, attempts=attempts))
        if self.first is not None and not self.first.done():
            self.first.set_result(None)

    def covers(self, feed: str, since: datetime, *, backlog: bool = False) -> None:
        """Note that nothing that happens is missed while this feed stands; close what that closes.

        Args:
            feed: Which one.
            since: From when.
            backlog: What came meanwhile was kept for it and is on its way.
        """
        self.tell_gaps(self.ledger.covers(feed, since, backlog=backlog))
        for refusal in self._refusing.values():
            refusal.covers(feed, since)
        self._mind_refused(None)
        self.tell_gaps(self.ledger.no_longer_refused(self._clock.now()))

    def caught_up(self, feed: str, *, recovered: bool, overflowed: bool) -> None:
        """Note that what was kept for a feed is in."""
        at = self._clock.now() if overflowed else None
        self.tell_gaps(self.ledger.caught_up(feed, recovered=recovered, overflowed=at))

    def covered(
        self, until: Mapping[str, datetime], silent: Mapping[str, datetime]
    ) -> datetime | None:
        """Return since when something is missed if all feeds that stand are lost now.

        Args:
            until: Up to when each covers what happens; without any there is no answer.
            silent: When its last byte came.
        """
        if not until:
            return None
        # What one of them is refused only the others cover.
        partly = (until.keys() - one.feeds for one in self._refusing.values())
        latest = [max(until[feed] for feed in having) for having in partly if having]
        return min([self.ledger.covered(until, silent), *latest])

    def lost(
        self,
        url: str,
        *,
        feed: str,
        since: datetime,
        covered: datetime,
        reason: GapReason,
        detail: str,
        last: EventKey | None,
    ) -> None:
        """A subscribed connection ended: what no other feed covers is a gap.

        Args:
            url: Where it was.
            feed: Which one.
            since: When its last byte came.
            covered: Until when it brought all that happened; before `since` if it was behind.
            reason: Why it ended.
            detail: That in words.
            last: The last event before.
        """
        self.stands.pop(feed, None)
        self.disconnects[reason] += 1
        log.warning("disconnected", feed=feed, url=url, reason=reason, detail=detail)
        self._tell(
            Disconnected(
                at=self._clock.now(),
                feed=feed,
                url=url,
                since=since,
                reason=reason,
                detail=detail,
            )
        )
        self.tell_gaps(self.ledger.lost(feed, covered, reason, last, silent=since))
        for refusal in self._refusing.values():
            refusal.lost(feed, covered, reason, since)
        self._mind_refused(last, None if self.stands else self.ledger.missing_since)

    def attempt_failed(self, error: ConnectError, *, feed: str) -> None:
        """One attempt failed; the source goes on."""
        self.attempts += 1
        self.outcomes[_outcome(error)] += 1
        log.warning("attempt_failed", feed=feed, url=error.url, problem=error.problem)

    def by_feed(self, known: Iterable[str]) -> dict[str, Stand | None]:
        """Return how each feed stands, of these and of all that ever stood; None: it does not."""
        names = sorted({*known, *self.heard_of}) or ["a"]
        return {name: self.stands.get(name) for name in names}

    def ended(self) -> None:
        """Note that the source ended, of its own accord or ours: nothing is connected any more."""
        self.stands.clear()

    # Destinations

    def destination_refused(
        self,
        destination: str,
        *,
        feed: str,
        since: datetime,
        detail: str,
        last: EventKey | None,
    ) -> None:
        """The server refuses one destination: name it, and whose events it would have brought."""
        refusal = self._refusing.get(destination)
        if refusal is None:
            stood = {name: stand.since for name, stand in self.stands.items()}
            refusal = self._refusing[destination] = _Refusal(set(), Coverage(since, stood))
        refusal.feeds.add(feed)
        refusal.having.end(feed, since, "refused", None)
        self._mind_refused(last)
        log.error("destination_refused", feed=feed, destination=destination, detail=detail)
        self._tell(
            SubscriptionRefused(
                at=self._clock.now(),
                feed=feed,
                destination=destination,
                devices=self._interest.devices_of(destination),
                since=since,
                detail=detail,
            )
        )

    def destination_accepted(self, destination: str, *, feed: str) -> None:
        """A refused destination stands after all, or is wanted no more: its gap is closed."""
        log.info("destination_accepted", feed=feed, destination=destination)
        refusal = self._refusing.get(destination)
        if refusal is not None:
            refusal.feeds.discard(feed)
            if feed in self.stands:
                refusal.covers(feed, self._clock.now())
        if refusal is None or not refusal.feeds:
            self._refusing.pop(destination, None)
            self._close_refused(destination, self._clock.now())
        self._mind_refused(None)

    def _mind_refused(self, last: EventKey | None, missing: datetime | None = None) -> None:
        """Hold a refused destination for missed, unless some feed that stands has it.

        Args:
            last: The last event before.
            missing: Since when all is missed, so that this need not be said as well.
        """
        now = self._clock.now()
        for destination, refusal in self._refusing.items():
            devices = self._interest.devices_of(destination)
            over, still = refusal.having.turned_out("refused")
            for hole in over:
                self.ledger.refused(destination, hole.since, None, devices)
                self._close_refused(destination, hole.until)
            if still is None:
                self._close_refused(destination, now)
            elif missing is None or still.since < missing:
                self.ledger.refused(destination, still.since, last, devices)

    def _close_refused(self, destination: str, at: datetime) -> None:
        gap = self.ledger.accepted(destination, at)
        self.tell_gaps([gap] if gap else [])

    # Gaps

    def tell_gaps(self, gaps: Iterable[Gap]) -> None:
        """Send gaps round."""
        for gap in gaps:
            seconds = (gap.until - gap.since).total_seconds() if gap.until else None
            log.warning(
                "gap", id=gap.id, reason=gap.reason, since=gap.since.isoformat(), seconds=seconds
            )
            self._tell(gap)
