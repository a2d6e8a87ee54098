"""The books of durable handlers: what each has done, what it has yet to do.

The journal's side of the lanes: it is told what a handler is done with or failed on, and brings
what an earlier run left undone and what a full lane left on disk. `commits` has events written.
"""

from __future__ import annotations

import asyncio
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import tzinfo
from itertools import chain
from typing import Any

from cti_listener.derived import Derived, read_derived
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import JournalError
from cti_listener.event_base import Delivery, Event
from cti_listener.events import event_in, load_object, parse_event
from cti_listener.journal import NO_DEVICE, OURS, Entry, Journal, Seqs, Unreadable
from cti_listener.lanes import Lane
from cti_listener.log import log
from cti_listener.router import Handler, Happening


class Books:
    """Keeps the books; a `Keeper` of lanes.

    Args:
        journal: Where they are kept.
        zone: Where the server's clock hangs.
        failed: Called with what makes reading them impossible.

    Attributes:
        tasks: Owns what is read beside all else; set before any lane asks.
    """

    def __init__(
        self, journal: Journal, *, zone: tzinfo, failed: Callable[[BaseException], None]
    ) -> None:
        """Begin with nothing to be read."""
        self.tasks: asyncio.TaskGroup
        self._journal = journal
        self._zone = zone
        self._failed = failed
        self._dispatcher: Dispatcher
        self._asking: deque[Lane] = deque()
        self._unreadable: set[int] = set()

    def open(
        self,
        dispatcher: Dispatcher,
        handlers: Mapping[str, Handler],
        unfinished: Mapping[str, Mapping[str, Seqs]],
    ) -> None:
        """Go on where the last run ended: each lane with what was left for it.

        Args:
            dispatcher: Who runs the lanes.
            handlers: The durable handlers, by name.
            unfinished: What each has yet to do, by device.
        """
        self._dispatcher = dispatcher
        dispatcher.keeper = self
        for name, lanes in unfinished.items():
            handler = handlers[name]
            if handler.order == "all" and lanes:
                dispatcher.resume(handler, None, sorted(chain.from_iterable(lanes.values())))
                continue
            for device, seqs in lanes.items():
                dispatcher.resume(handler, None if device == NO_DEVICE else device, seqs)

    def done(self, lane: Lane, seq: int) -> None:
        """Note that a lane is done with an event, and so with all before it."""
        handler = lane.handler
        device = None if handler.order == "all" else lane.device or NO_DEVICE
        self._journal.done(handler.name, device, seq)

    def dead(self, lane: Lane, seq: int, error: BaseException) -> None:
        """Keep an event that a handler failed on for good."""
        text = "".join(traceback.format_exception(error))
        self._journal.dead(lane.handler.name, seq, text)

    def refill(self, lane: Lane) -> None:
        """Bring the first of what a lane left in the journal.

        One lane after the other: each waits for the disk in a thread, of which there are few.
        """
        self._asking.append(lane)
        if len(self._asking) == 1:
            self.tasks.create_task(self._refill_all(), name="cti-refill")

    async def _refill_all(self) -> None:
        while self._asking:
            try:
                await self._refill(self._asking[0])
            except JournalError as error:
                self._failed(error)
                return
            self._asking.popleft()

    async def _refill(self, lane: Lane) -> None:
        if lane.spill is None:
            return  # it was given up
        seqs = lane.spill.left[: self._dispatcher.room(lane.handler)]
        if self._unreadable.intersection(seqs[:1]) and _at_work(lane):
            self._dispatcher.refilled(lane, (), 0)  # not its turn yet
            return
        entries = await asyncio.to_thread(self._journal.read, seqs)
        asked, readable = len(seqs), []
        for entry in entries:
            if isinstance(entry, Entry):
                event = self.event_of(entry)
                if event is not None:
                    readable.append((entry.seq, event))
                continue
            self._tell(entry)
            if readable or _at_work(lane):
                # Its mark will say that all before it is done: it has its turn behind that.
                asked = bisect_left(seqs, entry.seq)
                break
            self._journal.dead(lane.handler.name, entry.seq, entry.problem)
        self._dispatcher.refilled(lane, readable, asked)

    def _tell(self, odd: Unreadable) -> None:
        """Say that an event cannot be read: once, for it may be owed to several."""
        if odd.seq not in self._unreadable:
            self._unreadable.add(odd.seq)
            log.error(
                "journal_event_unreadable",
                path=str(self._journal.path),
                seq=odd.seq,
                problem=odd.problem,
                advice="each handler that is owed it has a dead letter instead",
            )

    def events_after(self, seq: int) -> Iterator[Event | None]:
        """Yield what is behind this event, as `Commits.events_after` does.

        What cannot be read is left out, as what is gone.

        Raises:
            JournalError: The file cannot be read.
        """
        for entry in self._journal.read_after(seq):
            if isinstance(entry, Unreadable):
                continue
            # A dead letter that was tried again is no news, nor is what followed from an event.
            news = None if entry.repeated or entry.feed == OURS else self.event_of(entry)
            yield news if isinstance(news, Event) else None

    def event_of(self, entry: Entry) -> Happening | None:
        """Build what came back from disk, see `read_event`."""
        if entry.feed == OURS:
            return read_notice(entry)
        delivery = Delivery(
            entry.received_at,
            entry.feed,
            self._zone,
            redelivered=entry.redelivered,
            late=entry.late,
        )
        return read_event(entry.payload, entry.device, delivery)


def _at_work(lane: Lane) -> bool:
    return bool(lane.queue) or lane.running is not None


def read_notice(entry: Entry) -> Derived | None:
    """Build a notice that came back from disk; one that cannot be read is logged."""
    try:
        notice = read_derived(entry.payload)
    except ValueError:
        log.exception("notice_failed", keys=list(entry.payload)[:50])
        return None
    return notice and replace(notice, redelivered=entry.redelivered)


def read_event(
    payload: dict[str, Any] | bytes,
    device: str | None,
    delivery: Delivery,
    kind: type[Event] | None = None,
) -> Event | None:
    """Build an event's model; a bug of ours on one is logged, and the next one goes on.

    Args:
        payload: The object as received, or its JSON text.
        device: Its routing key.
        delivery: What is ours about it.
        kind: Its class, if it is the text.
    """
    try:
        if type(payload) is bytes and kind is not None:
            return event_in(payload, kind, device, delivery)
        return parse_event(payload, device=device, delivery=delivery)
    except Exception:  # noqa: BLE001 - told, and no more
        log.exception("event_failed", keys=list(load_object(payload))[:50])
        return None
