"""The way of an event, from the source to the hand-over, in one synchronous stretch.

The pipeline is the `Receiver` of the source. Nothing in it waits and nothing it calls is a user's,
but for the `where=` of a handler. What becomes of connections is for `standing` to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from math import inf
from typing import Any, Final, get_args

from cti_listener.clock import Clock
from cti_listener.commits import Commits
from cti_listener.counters import Counters
from cti_listener.dedupe import Dedupe, Texts
from cti_listener.errors import BadReason, ConnectError
from cti_listener.event_base import Delivery, Event
from cti_listener.events import CATALOGUE, class_of, event_of
from cti_listener.feeds import Feeds
from cti_listener.following import Following
from cti_listener.handover import Handover
from cti_listener.histogram import LONG, Histogram
from cti_listener.inquiry import Inquiry
from cti_listener.interest import Interest
from cti_listener.journal import JournalStats, Opened
from cti_listener.log import log
from cti_listener.notices import Gap, GapReason, Notice
from cti_listener.splicing import Later, Splicing, Taken
from cti_listener.standing import Standing
from cti_listener.stats import Stats
from cti_listener.tracking import Tracking
from cti_listener.values import EventKey, identity, plain_int, read_time, routing_key
from cti_listener.wire.base import MessageBad, Recall, WireName

LAG_INTERVAL: Final = 0.05
"""The age of one event is taken so often at most, in seconds."""


class Pipeline:
    """Takes what the source brings; has it handed to whoever wants it.

    Args:
        interest: Who was asked for.
        dedupe: The window of what was seen.
        clock: The one clock.
        handover: Who wants what.
        commits: What commits each event first; None: there is no journal.
        feeds: What keeps several feeds in step; None: there is one.
        hold: For how long a feed that comes back is held back at most, in seconds.
        later: Has something called later; needed for several feeds.
        following: What follows from events; None: nothing is tracked.
        inquiry: Asks how devices stand; None: nobody can tell.
        texts: What the latest texts said, while many of them come again.

    Attributes:
        interest: As above.
        standing: What becomes of the connections.
        queues_emptied: When each queue that a broker keeps for us was known to be empty, as is kept
            for later runs.
    """

    def __init__(
        self,
        interest: Interest,
        dedupe: Dedupe,
        clock: Clock,
        handover: Handover,
        *,
        commits: Commits | None = None,
        feeds: Feeds | None = None,
        hold: float = 1.0,
        later: Later | None = None,
        following: Following | None = None,
        inquiry: Inquiry | None = None,
        texts: Texts | None = None,
    ) -> None:
        """Start with nothing received."""
        self.interest = interest
        self.queues_emptied: dict[str, datetime] = {}
        keep = _forget if commits is None else commits.keep
        self.standing = Standing(interest, clock, tell=self.tell, keep=keep)
        self._ledger = self.standing.ledger
        self._clock = clock
        self._handover = handover
        self._dedupe = dedupe
        self._commits = commits
        if commits is not None:
            interest.seated = commits.seated
        self._splicing: Splicing | None = None
        if feeds is not None:
            self._splicing = Splicing(
                feeds,
                clock,
                self._ledger,
                dedupe=dedupe,
                hold=hold,
                later=later,
                admit=self._admit,
                tell=self.tell,
                go_on=self.when_committed,
            )
        self._following = following or Following(
            partial(Tracking, wanted=handover.wanted), handover, clock, commits
        )
        self._inquiry = inquiry
        self._inquired = False  # about everybody, at the start
        # What a broker keeps for longer is refused.
        self._counters = Counters(dedupe.max_age)
        self._frames = 0
        self._frames_by_wire: dict[WireName, int] = dict.fromkeys(get_args(WireName), 0)
        self._wire: WireName = "other"  # of the frames that are not among these yet
        self._received: dict[Any, int] = dict.fromkeys(CATALOGUE, 0)  # by name
        self._received_others = self._not_asked_for = self._repeated = self._distinct = 0
        self._texts = texts or Texts()
        self._recall: Recall | None = None  # while they are kept
        self._recalled = 0
        self._attentive = True  # to the next distinct event
        self._lag = Histogram(LONG)
        self._lag_due = -inf
        self._bad: Counter[BadReason] = Counter()
        self._bad_told: dict[BadReason, float] = {}
        self._last_key: tuple[Any, ...] | None = None
        self._now = clock.monotonic()  # when the socket was read last
        self._last_frame_at: datetime | None = None
        self._last_event_at: datetime | None = None

    def resume(self, opened: Opened) -> None:
        """Go on where the journal's last run ended: what it saw is seen, its gaps go on."""
        for name in opened.seen:
            self._dedupe.admit(name, self._now)
        self.queues_emptied = dict(opened.queues_emptied)
        self.interest.resume(opened.seats)
        for key, heard in opened.latest:  # the server may have restarted while we were away
            self._note_serial(key, heard)
        self._last_key = last = opened.latest[-1][0] if opened.latest else None
        self._ledger.resume(
            opened.last_gap, opened.open_gaps, opened.last_sign, last, opened.awaiting
        )

    def _count_frames(self, wire: WireName) -> None:
        """Go on counting frames of another wire; the one at hand is its first."""
        before = self._frames - 1
        self._frames_by_wire[self._wire] += before - sum(self._frames_by_wire.values())
        self._wire = wire

    # Events

    def message_received(self, delivery: Delivery, wire: WireName = "other") -> Recall | None:
        """Count a WebSocket message; its events follow with the same delivery.

        Returns:
            What tells of a text that it came before, and counts it; None while few come again.
        """
        self._frames += 1
        heard = delivery.received_at
        if heard is None or heard is not self._last_frame_at:  # once for all that a read brings
            self._now = self._clock.monotonic()
            self._last_frame_at = heard
            if self._now >= self._lag_due:
                self._lag_due = self._now + LAG_INTERVAL
                self._attentive = True
            if wire is not self._wire:
                self._count_frames(wire)
            if self._distinct + self._repeated >= self._texts.due:
                self._mind_texts()
        return self._recall

    def event_received(
        self,
        payload: dict[str, Any],
        destination: str | None,
        delivery: Delivery,
        text: bytes | None = None,
    ) -> None:
        """Take an event object; a bug of ours on one is logged and counted, no more."""
        try:
            self._received[payload["eventName"]] += 1
        except (KeyError, TypeError):  # none, or not of the catalogue
            self._received_others += 1
        try:
            device = routing_key(payload)
            key = identity(payload, device)
            if not self.interest.wants(payload, device, destination):
                self._mind_counter(key, delivery.received_at)
                self._not_asked_for += 1
                return
            name = hash(key)
            if self._splicing is None:
                self._admit(payload, device, key, name, delivery, text=text)
                if self._recall is not None and text is not None:
                    self._texts.keep(text, (device, key[4], name))
            else:
                kept = None if self._commits is None else text
                taken = Taken(payload, device, key, name, delivery, kept)
                self._splicing.take(taken, self._now)
        except Exception:  # noqa: BLE001 - counted and told, and the next one goes on
            self._mind_failed(payload)

    def _mind_texts(self) -> None:
        """Keep the texts of events while many come again, which costs each of them something."""
        if self._splicing is None:  # several feeds have to know of each copy
            events = self._distinct + self._repeated
            on = self._texts.look(events, self._repeated, self._recalled, self._now)
            self._recall = self._recall_text if on else None

    def _recall_text(self, text: bytes) -> bool:
        """Take a text for a repeat, as `event_received` would; False: it has to be read."""
        said = self._texts.said(text)
        if said is None:
            return False
        device, event_name, name = said
        if not self._dedupe.knows(name, self._now) or not self.interest.wants_still(device):
            return False
        try:
            self._received[event_name] += 1
        except KeyError:
            self._received_others += 1
        self._repeated += 1
        self._recalled += 1
        return True

    def _mind_counter(self, key: tuple[Any, ...], heard: datetime | None) -> None:
        """Name a gap if the server restarted its counter between two events."""
        before = None if heard is None else self._note_serial(key, heard)
        if heard is None or before is None or not self.interest.includes_namespace(key[0]):
            return
        last, first = self._last_event, EventKey(*key)
        self.standing.tell_gaps([self._ledger.restarted(before, heard, last, first)])

    def _note_serial(self, key: tuple[Any, ...], heard: datetime) -> datetime | None:
        namespace, kind, _, serial, _, stamped, _, _ = key
        number = serial if type(serial) is int else plain_int(serial)
        if number is not None and type(stamped) is str:
            return self._counters.note(namespace, kind, number, stamped, heard)
        return None

    def _admit(
        self,
        payload: dict[str, Any],
        device: str | None,
        key: tuple[Any, ...],
        name: int,
        delivery: Delivery,
        *,
        text: bytes | None,
    ) -> None:
        """Have an event handed over, unless it was seen."""
        if not self._dedupe.admit(name, self._now):
            self._repeated += 1
            return
        self._mind_counter(key, delivery.received_at)  # what came before tells nothing of now
        self._distinct += 1
        self._last_key = key
        self._last_event_at = delivery.received_at
        if self._attentive:
            self._attend(key, delivery)
        if self._inquiry is not None and device is not None and self._inquiry.is_closed(device):
            go_on = partial(self._go_on_later, payload, device, key, delivery, text=text)
            self._inquiry.hold(device, go_on, delivery.received_at)
            return
        self._go_on(payload, device, key, delivery, text=text)

    def _attend(self, key: tuple[Any, ...], delivery: Delivery) -> None:
        """Look closer at one event now and then, and after a gap: the others need not pay for it.

        How old it is, by the server's clock; and whether a gap lacks the first event after it.
        """
        self._attentive = False
        if self._ledger.awaiting:
            self._ledger.note(EventKey(*key))
        heard, stamped = delivery.received_at, key[5]
        told = read_time(stamped, delivery.zone) if isinstance(stamped, str) else None
        if told is not None and heard is not None:
            self._lag.note(max(0.0, (heard - told).total_seconds()))

    def _go_on_later(self, payload: dict[str, Any], *taken: Any, text: bytes | None) -> None:
        """Have an event go on that waited at its gate; a bug of ours on one holds up no other."""
        try:
            self._go_on(payload, *taken, text=text)
        except Exception:  # noqa: BLE001 - counted and told, as for those that did not wait
            self._mind_failed(payload)

    def _mind_failed(self, payload: dict[str, Any]) -> None:
        self._bad["internal"] += 1
        log.exception("event_failed", keys=list(payload)[:50])

    def _go_on(
        self,
        payload: dict[str, Any],
        device: str | None,
        key: tuple[Any, ...],
        delivery: Delivery,
        *,
        text: bytes | None,
    ) -> None:
        """Have a distinct event folded, committed and handed over."""
        router = self._handover.handlers
        if self._commits is None:
            event = event_of(payload, device, delivery)
            following = self._following
            notices = () if following.tracking is None else following.fold(event, key)
            self._handover.give(event, device, router.match(event, device))
            if notices:
                following.give(notices)
            return
        read: Event | None = None
        kind = class_of(payload)
        handlers = router.match_unread(kind, device)
        if handlers is None:
            read = event_of(payload, device, delivery)
            handlers = router.match(read, device)
        follow = None
        if self._following.tracking is not None:
            follow = self._following.fold(read or event_of(payload, device, delivery), key)
        self._commits.append(
            payload,
            device,
            delivery,
            event=read,
            kind=kind,
            handlers=handlers,
            text=text,
        )
        if follow is not None:
            self._following.give(follow)

    def message_bad(self, bad: MessageBad) -> None:
        """Count a message that was no event, and log its beginning, once a second at most."""
        self._bad[bad.reason] += bad.count
        if bad.reason == "too_large":  # it may have held any number of events
            self.standing.tell_gaps([self._ledger.left_out(self._clock.now(), self._last_event)])
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

    def when_committed(self, call: Callable[[], None]) -> None:
        """Call once all events taken before are committed; without a journal, at once."""
        if self._splicing is not None and self._splicing.holding:
            self._splicing.behind(call)
        elif self._inquiry is not None and self._inquiry.holding:
            self._inquiry.behind(partial(self._when_on_disk, call))
        else:
            self._when_on_disk(call)

    def _when_on_disk(self, call: Callable[[], None]) -> None:
        if self._commits is None:
            call()
        else:
            self._commits.behind(call)

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        """Keep for later runs that these queues were empty then; None: rely on them no more."""
        for name in names:
            if at is None:
                self.queues_emptied.pop(name, None)
            else:
                self.queues_emptied[name] = at
        if self._commits is not None:
            self._commits.queues_empty(names, at)

    def inquire(self, devices: Iterable[str]) -> None:
        """Ask how devices stand that are listened to from now on."""
        if self._inquiry is not None and self._inquired:
            self._inquiry.want(devices)

    def covered(self, signs: Mapping[str, datetime]) -> datetime | None:
        """Return up to when nothing is missed if we die now; None: that is not known.

        Args:
            signs: When the last byte came by each feed that stands.
        """
        if self._splicing is not None:
            sign = self.standing.covered(self._splicing.covered(signs), signs)
        else:
            sign = max(signs.values(), default=None)
        since = None if self._inquiry is None else self._inquiry.holding_since
        return sign if since is None or sign is None else min(sign, since)

    def leave(self) -> None:
        """Hold nothing back any more: what reached us is handled, though nobody else brings it."""
        if self._inquiry is not None:
            self._inquiry.leave()
        if self._splicing is not None:
            self._splicing.leave()

    # Connections

    def subscribed(
        self, url: str, *, feed: str, confirmed: bool, attempts: int, backlog: bool = False
    ) -> None:
        """Every destination stands that is not refused: tell it, and the gap that this closes."""
        self.standing.subscribed(url, feed=feed, confirmed=confirmed, attempts=attempts)
        if self._splicing is not None:
            self._splicing.stood(feed)
        since = self.standing.stands[feed].since
        self.standing.covers(feed, since, backlog=backlog)
        if self._commits is not None and self.covered({feed: since}) == since:
            self._commits.note_life(since)  # if we die now, it was covered till then
        if self._inquiry is not None and not self._inquired:
            self._inquired = True
            self._inquiry.want(self._known_devices)

    def caught_up(self, feed: str, *, recovered: bool, overflowed: bool = False) -> None:
        """What a broker kept for a feed is in, and committed."""
        self.standing.caught_up(feed, recovered=recovered, overflowed=overflowed)

    def lost(self, url: str, *, feed: str, since: datetime, reason: GapReason, detail: str) -> None:
        """A subscribed connection ended: what no other feed covers is a gap."""
        if self._inquiry is not None and self.standing.stands.keys() <= {feed}:
            self._inquiry.doubt()
        covered, splices = since, list[int]()
        if self._splicing is not None:
            covered, splices = self._splicing.lost(feed, since, too_large=reason == "oversized")
        self.standing.lost(
            url,
            feed=feed,
            since=since,
            covered=covered,
            reason=reason,
            detail=detail,
            last=self._last_event,
        )
        if self._splicing is not None:
            self._splicing.end(splices)

    def attempt_failed(self, error: ConnectError, *, feed: str) -> None:
        """One attempt failed; the source goes on."""
        self.standing.attempt_failed(error, feed=feed)

    def destination_refused(
        self, destination: str, *, feed: str, since: datetime, detail: str
    ) -> None:
        """The server refuses one destination; the source goes on without it."""
        self.standing.destination_refused(
            destination, feed=feed, since=since, detail=detail, last=self._last_event
        )

    def destination_accepted(self, destination: str, *, feed: str) -> None:
        """A refused destination stands after all, or is wanted no more."""
        self.standing.destination_accepted(destination, feed=feed)

    # Notices

    def tell(self, notice: Notice) -> None:
        """Hand a notice over, behind the events taken before it."""
        if isinstance(notice, Gap):
            self._attentive = True
            if self._inquiry is not None and not notice.recovered:
                self._inquiry.doubt(notice.devices)
                self._inquiry.want(notice.devices or self._known_devices)
            self._following.missed(notice)
        if self._commits is None:
            self._handover.tell(notice)
        else:
            self._commits.behind(partial(self._handover.tell, notice))

    @property
    def _known_devices(self) -> tuple[str, ...]:
        """The devices that were asked for by name, and those that were heard of."""
        return tuple(dict.fromkeys((*self.interest.devices, *self._following.devices)))

    @property
    def _last_event(self) -> EventKey | None:
        return None if self._last_key is None else EventKey(*self._last_key)

    def stats(self) -> Stats:
        """Return a frozen snapshot."""
        stands = self.standing.stands.values()
        handover, tracking = self._handover, self._following.tracking
        feeds = {} if self._splicing is None else self._splicing.stats()
        kept = None if self._commits is None else self._commits.stats()
        oldest_at, oldest_by = self._oldest_unhandled(kept)
        return Stats(
            connected=bool(stands),
            connected_since=min((stand.since for stand in stands), default=None),
            url=self.standing.url,
            attempts=self.standing.attempts,
            connections=self.standing.connections,
            frames=self._frames,
            frames_by_wire=self._by_wire(),
            received=sum(self._received.values()) + self._received_others,
            received_by_name=dict(self._received),
            not_asked_for=self._not_asked_for,
            repeated=self._repeated,
            distinct=self._distinct,
            unrouted=handover.unrouted,
            bad=dict(self._bad),
            remembered=len(self._dedupe),
            waiting=handover.waiting,
            handlers=handover.stats(),
            last_frame_at=self._last_frame_at,
            last_event_at=self._last_event_at,
            gaps=self._ledger.gaps,
            feeds=feeds,
            journal=kept,
            inconsistencies=0 if tracking is None else tracking.inconsistencies,
            snapshots=None if self._inquiry is None else self._inquiry.stats(),
            outcomes=dict(self.standing.outcomes),
            disconnects=dict(self.standing.disconnects),
            gaps_by_reason=dict(self._ledger.counts),
            lag=self._lag.distribution(),
            stands=self.standing.by_feed(feeds),
            oldest_unhandled_at=oldest_at,
            oldest_unhandled_by=oldest_by,
        )

    def _by_wire(self) -> dict[WireName, int]:
        counted = self._frames_by_wire
        more = self._frames - sum(counted.values())
        return {**counted, self._wire: counted[self._wire] + more}

    def _oldest_unhandled(
        self, kept: JournalStats | None
    ) -> tuple[datetime, str] | tuple[None, None]:
        """Return when the oldest event came that a handler has yet to do, and which handler."""
        in_lanes = self._handover.oldest
        if kept is None or kept.oldest_undone is None or kept.oldest_undone_by is None:
            return in_lanes or (None, None)
        on_disk = kept.oldest_undone, kept.oldest_undone_by
        return min(in_lanes or on_disk, on_disk)


def _forget(_gap: Gap) -> None:
    """Keep no gap: there is no journal."""
