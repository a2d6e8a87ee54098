"""The way of an event, from the source to the lanes, in one synchronous stretch.

The pipeline is the `Receiver` of the source. Nothing in it waits and nothing it calls is a user's,
but for the `where=` of a handler. It also turns what becomes of the connection into notices.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from math import inf
from typing import Any

from cti_listener.clock import Clock
from cti_listener.counters import Counters
from cti_listener.dedupe import Dedupe
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import BadReason, ConnectError
from cti_listener.event_base import Delivery
from cti_listener.events import parse_event
from cti_listener.gaps import GapLedger
from cti_listener.interest import Interest
from cti_listener.lanes import NOTICES
from cti_listener.log import log
from cti_listener.notices import (
    Connected,
    Disconnected,
    Gap,
    GapReason,
    Notice,
    SubscriptionRefused,
)
from cti_listener.router import Handler, Router
from cti_listener.stats import HandlerStats, Stats
from cti_listener.streams import Tap
from cti_listener.values import EventKey, identity, routing_key
from cti_listener.wire.base import MessageBad


class Pipeline:
    """Takes what the source brings; hands it to whoever wants it.

    Args:
        interest: Who was asked for.
        dedupe: The window of what was seen.
        clock: The one clock.
    """

    def __init__(self, interest: Interest, dedupe: Dedupe, clock: Clock) -> None:
        """Start with nothing received."""
        self.interest = interest
        self.handlers: Router[Handler] = Router()
        self.taps: Router[Tap] = Router()
        self.ledger = GapLedger()
        self.first_subscribed: asyncio.Future[None] | None = None
        self._clock = clock
        self._dedupe = dedupe
        self._counters = Counters()
        self._dispatcher: Dispatcher
        self._frames = self._received = self._not_asked_for = self._repeated = 0
        self._distinct = self._unrouted = self._attempts = self._connections = 0
        self._bad: Counter[BadReason] = Counter()
        self._bad_told: dict[BadReason, float] = {}
        self._last_key: tuple[Any, ...] | None = None
        self._now = clock.monotonic()  # read once a message
        self._last_frame_at: datetime | None = None
        self._last_event_at: datetime | None = None
        self._connected_since: datetime | None = None
        self._url: str | None = None

    def attach(self, dispatcher: Dispatcher) -> None:
        """Put into this dispatcher's lanes."""
        self._dispatcher = dispatcher

    # Events

    def message_received(self, delivery: Delivery) -> None:
        """Count a WebSocket message; its events follow with the same delivery."""
        self._frames += 1
        self._now = self._clock.monotonic()
        self._last_frame_at = delivery.received_at

    def event_received(
        self, payload: dict[str, Any], destination: str | None, delivery: Delivery
    ) -> None:
        """Take an event object; a bug of ours on one is logged and counted, no more."""
        self._received += 1
        try:
            self._take(payload, destination, delivery)
        except Exception:  # noqa: BLE001 - counted and told, and the next one goes on
            self._bad["internal"] += 1
            log.exception("event_failed", keys=list(payload)[:50])

    def _take(self, payload: dict[str, Any], destination: str | None, delivery: Delivery) -> None:
        device = routing_key(payload)
        serial = payload.get("serial")
        key = identity(payload, device)
        if type(serial) is int and delivery.received_at is not None:
            self._mind_counter(serial, key, delivery.received_at)
        if not self.interest.wants(payload, device, destination):
            self._not_asked_for += 1
            return
        if not self._dedupe.admit(hash(key), self._now):
            self._repeated += 1
            return
        self._distinct += 1
        self._last_key = key
        self._last_event_at = delivery.received_at
        if self.ledger.awaiting:
            self.ledger.note(EventKey(*key))
        event = parse_event(payload, device=device, delivery=delivery)
        handlers = self.handlers.match(event, device)
        for handler in handlers:
            self._dispatcher.put(handler, device, event)
        taps = self.taps.match(event, device)
        if taps:
            for tap in list(taps):  # one that has what it waited for goes away
                tap.offer(event)
        elif not handlers:
            self._unrouted += 1

    def _mind_counter(self, serial: int, key: tuple[Any, ...], heard: datetime) -> None:
        namespace, kind, stamped = key[0], key[1], key[5]
        if type(namespace) is str and type(kind) is str and type(stamped) is str:
            before = self._counters.note(namespace, kind, serial, stamped, heard)
            if before is not None and self.interest.includes_namespace(namespace):
                self._tell_gap(self.ledger.restarted(before, heard, EventKey(*key)))

    def message_bad(self, bad: MessageBad) -> None:
        """Count a message that was no event, and log its beginning, once a second at most."""
        self._bad[bad.reason] += bad.count
        if bad.reason == "too_large":  # it may have held any number of events
            self._tell_gap(self.ledger.left_out(self._clock.now(), self._last_event))
        now = self._clock.monotonic()
        if now >= self._bad_told.get(bad.reason, -inf) + 1.0:
            self._bad_told[bad.reason] = now
            log.warning(
                "message_bad",
                reason=bad.reason,
                detail=bad.detail,
                sample=repr(bad.sample),
                so_far=self._bad[bad.reason],
            )

    # The connection

    def subscribed(self, url: str, *, feed: str, confirmed: bool, attempts: int) -> None:
        """Every destination stands that is not refused: tell it, and the gap that this closes."""
        now = self._clock.now()
        self._attempts += 1
        self._connections += 1
        self._url, self._connected_since = url, now
        log.info("connected", url=url, confirmed=confirmed, attempts=attempts)
        self.tell(Connected(at=now, feed=feed, url=url, confirmed=confirmed, attempts=attempts))
        self._tell_gap(self.ledger.regained(now, None))
        if self.first_subscribed is not None and not self.first_subscribed.done():
            self.first_subscribed.set_result(None)

    def lost(self, url: str, *, feed: str, since: datetime, reason: GapReason, detail: str) -> None:
        """A subscribed connection ended: a gap is open."""
        now = self._clock.now()
        self._connected_since = None
        self.ledger.lost(since, reason, self._last_event)
        log.warning("disconnected", url=url, reason=reason, detail=detail)
        self.tell(
            Disconnected(at=now, feed=feed, url=url, since=since, reason=reason, detail=detail)
        )

    def ended(self) -> None:
        """Note that the source ended, of its own accord or ours: nothing is connected any more."""
        self._connected_since = None

    def attempt_failed(self, error: ConnectError, *, feed: str) -> None:
        """One attempt failed; the source goes on."""
        self._attempts += 1
        log.warning("attempt_failed", feed=feed, url=error.url, problem=error.problem)

    def destination_refused(
        self, destination: str, *, feed: str, since: datetime, detail: str
    ) -> None:
        """The server refuses one destination: name it, and whose events it would have brought."""
        devices = self.interest.devices_of(destination)
        self.ledger.refused(destination, since, self._last_event, devices)
        log.error("destination_refused", destination=destination, detail=detail)
        self.tell(
            SubscriptionRefused(
                at=self._clock.now(),
                feed=feed,
                destination=destination,
                devices=devices,
                since=since,
                detail=detail,
            )
        )

    def destination_accepted(self, destination: str) -> None:
        """A refused destination stands after all: its gap is closed."""
        log.info("destination_accepted", destination=destination)
        self._tell_gap(self.ledger.accepted(destination, self._clock.now()))

    # Notices

    def tell(self, notice: Notice, but: Handler | None = None) -> None:
        """Put a notice, in order, into the lanes it concerns.

        A handler without a device has a lane of its own for notices, one with a device gets them in
        that device's lane.

        Args:
            notice: What to tell.
            but: Who knows already.
        """
        for handler in self.handlers.match_notice(notice):
            if handler is not but:
                self._dispatcher.put(handler, handler.wish.device or NOTICES, notice)
        for tap in self.taps.match_notice(notice):
            tap.offer(notice)

    def _tell_gap(self, gap: Gap | None) -> None:
        if gap is None:
            return
        seconds = (gap.until - gap.since).total_seconds() if gap.until else None
        log.warning(
            "gap", id=gap.id, reason=gap.reason, since=gap.since.isoformat(), seconds=seconds
        )
        self.tell(gap)

    @property
    def _last_event(self) -> EventKey | None:
        return None if self._last_key is None else EventKey(*self._last_key)

    def stats(self) -> Stats:
        """Return a frozen snapshot."""
        return Stats(
            connected=self._connected_since is not None,
            connected_since=self._connected_since,
            url=self._url,
            attempts=self._attempts,
            connections=self._connections,
            frames=self._frames,
            received=self._received,
            not_asked_for=self._not_asked_for,
            repeated=self._repeated,
            distinct=self._distinct,
            unrouted=self._unrouted,
            bad=dict(self._bad),
            remembered=len(self._dedupe),
            waiting=self._dispatcher.waiting,
            handlers={
                one.name: HandlerStats(
                    handled=one.handled, failed=one.failed, dropped=one.dropped, waiting=one.waiting
                )
                for one in self.handlers
            },
            last_frame_at=self._last_frame_at,
            last_event_at=self._last_event_at,
            gaps=self.ledger.gaps,
        )
