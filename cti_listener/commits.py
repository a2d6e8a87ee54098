"""The journal on an event's way: what comes is committed before anybody is given it.

Between the pipeline and the hand-over. An event is appended with the names of the durable handlers
that want it; once it is on disk it is handed over, and what came behind it, notices and
acknowledgements, has its turn. The journal's side of the lanes is here too: what a handler is done
with, what it failed on, what a full lane left on disk, and what an earlier run left undone.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Final

from cti_listener.clock import Clock
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import JournalError
from cti_listener.event_base import Delivery, Event
from cti_listener.events import parse_event
from cti_listener.handover import Handover
from cti_listener.journal import NO_DEVICE, Entry, Journal, JournalStats, Opened
from cti_listener.lanes import Lane
from cti_listener.notices import Gap
from cti_listener.router import Handler
from cti_listener.values import EventKey, identity, routing_key

UNDER_WAY: Final = 20_000
"""How many events wait for their commit before reading is paused; it goes on at half as many."""

PAGE: Final = 1000
"""How many unfinished events are read at once."""

INTERVAL: Final = 1.0
"""How often a sign of life is kept, and retries are looked for, in seconds."""


class Commits:
    """Has each event committed, then handed over.

    Args:
        journal: Where to; not open yet.
        handover: To whom, then.
        clock: The one clock.
        zone: Where the server's clock hangs.
        pressure: Called with True when too many wait for the disk, with False when no longer.
        failed: Called once, with what makes going on impossible.
    """

    def __init__(
        self,
        journal: Journal,
        handover: Handover,
        *,
        clock: Clock,
        zone: tzinfo,
        pressure: Callable[[bool], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Wait to be opened."""
        self._journal = journal
        self._handover = handover
        self._dispatcher: Dispatcher
        self._clock = clock
        self._zone = zone
        self._pressure = pressure
        self._pressing = False
        self._failed = failed
        self._appended = self._landed = 0
        self._behind: deque[tuple[int, Callable[[], None]]] = deque()
        self._settled: asyncio.Future[None] | None = None
        self._tasks: asyncio.TaskGroup
        journal.committed = self._committed
        journal.failed = self._broke

    def __repr__(self) -> str:
        return f"<Commits {self._appended - self._landed} under way in {self._journal!r}>"

    # Life

    async def open(self, dispatcher: Dispatcher) -> Opened:
        """Open the journal for the durable handlers there are.

        Raises:
            JournalError: It cannot be used as it is.
        """
        self._dispatcher = dispatcher
        dispatcher.keeper = self
        return await self._journal.open([one.name for one in self._durable()])

    async def replay(self) -> None:
        """Put into lanes what an earlier run left undone, marked as such; before anything new.

        Raises:
            JournalError: It cannot be read.
        """
        for handler in self._durable():
            after = 0
            while found := await self._unfinished(handler, None, after, PAGE):
                for entry in found:
                    self._dispatcher.put(handler, entry.device, self._event(entry), entry.seq)
                after = found[-1].seq
                if handler.order == "all" and self._dispatcher.has_spilled(handler):
                    break  # its one lane finds the rest itself

    async def run(self, last_sign: Callable[[], datetime | None]) -> None:
        """Keep signs of life and refill lanes, until cancelled.

        Args:
            last_sign: Tells when the last byte came of a connection that stands, if one does.
        """
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self.note_life(last_sign())
                await self._clock.sleep(INTERVAL)

    def note_life(self, sign: datetime | None) -> None:
        """Keep a sign of life, if there is one; look whether anybody asked for retries."""
        if sign is None:
            self._journal.poll_retries()
        else:
            self._journal.alive(sign)

    async def settle(self, timeout: float) -> None:
        """Wait until all that was appended is handed over, or the time is over."""
        if self._appended > self._landed and timeout > 0:
            self._settled = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settled], timeout=timeout)

    async def close(self) -> None:
        """Write what is left to write, and close the journal."""
        await self._journal.close()

    # What comes

    def append(
        self,
        event: Event,
        device: str | None,
        *,
        digest: bytes,
        handlers: Iterable[Handler],
        payload: dict[str, object],
    ) -> None:
        """Have an event committed, then handed over to these handlers."""
        delivery = event.delivery
        wanting = tuple(handlers)
        self._appended += 1
        self._journal.append(
            Entry(
                digest=digest,
                device=device,
                call=event.call_id,
                received_at=delivery.received_at or self._clock.now(),
                feed=delivery.feed,
                payload=payload,
                owed=tuple([one.name for one in wanting if one.durable]),
                late=delivery.late,
                context=(event, wanting),
            )
        )
        if not self._pressing and self._appended - self._landed > UNDER_WAY:
            self._pressing = True
            self._pressure(True)  # noqa: FBT003 - the name of the callback says it

    def behind(self, call: Callable[[], None]) -> None:
        """Call once all that was appended before is committed; at once, if it is."""
        if self._appended == self._landed:
            call()
        else:
            self._behind.append((self._appended, call))

    def keep(self, gap: Gap) -> None:
        """Keep a gap, or what became of it."""
        self._journal.gap(gap)

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        """Keep when these queues of a broker were known to be empty; None: forget it."""
        self._journal.queues_empty(names, at)

    def _committed(self, entries: list[Entry]) -> None:
        behind = self._behind
        for entry in entries:
            if entry.context is None:
                self._try_again(entry)
                continue
            event, handlers = entry.context
            self._landed += 1
            self._handover.give(event, entry.device, handlers, entry.seq)
            while behind and behind[0][0] <= self._landed:
                behind.popleft()[1]()
        if self._pressing and self._appended - self._landed <= UNDER_WAY // 2:
            self._pressing = False
            self._pressure(False)  # noqa: FBT003 - as above
        if self._appended == self._landed:
            self._tell_settled()

    def _try_again(self, entry: Entry) -> None:
        """Put a dead letter at the tail of its lane: somebody asked for it on the command line."""
        for handler in self._durable():
            if handler.name in entry.owed:
                self._dispatcher.put(handler, entry.device, self._event(entry), entry.seq)

    def _broke(self, error: BaseException) -> None:
        self._behind.clear()  # nothing is acknowledged that is not on disk
        self._tell_settled()
        self._failed(error)

    def _tell_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    # The books of durable handlers

    def done(self, lane: Lane, seq: int) -> None:
        """Note that a lane is done with an event, and so with all before it."""
        self._journal.done(lane.handler.name, _name_of(lane), seq)

    def dead(self, lane: Lane, seq: int, error: BaseException) -> None:
        """Keep an event that a handler failed on for good."""
        text = "".join(traceback.format_exception(error))
        self._journal.dead(lane.handler.name, seq, text)

    def refill(self, lane: Lane) -> None:
        """Find what a lane left in the journal, and bring it."""
        self._tasks.create_task(self._refill(lane), name="cti-refill")

    async def _refill(self, lane: Lane) -> None:
        limit = lane.handler.lane_size
        try:
            found = await self._unfinished(lane.handler, _name_of(lane), lane.last_seq, limit)
        except JournalError as error:
            self._broke(error)
            return
        events = [(entry.seq, self._event(entry)) for entry in found]
        self._dispatcher.refilled(lane, events, complete=len(found) < limit)

    async def _unfinished(
        self, handler: Handler, device: str | None, after: int, limit: int
    ) -> Sequence[Entry]:
        return await asyncio.to_thread(
            self._journal.unfinished, handler.name, device=device, after=after, limit=limit
        )

    def _durable(self) -> list[Handler]:
        return [one for one in self._handover.handlers if one.durable]

    def _event(self, entry: Entry) -> Event:
        delivery = Delivery(
            entry.received_at,
            entry.feed,
            self._zone,
            redelivered=entry.redelivered,
            late=entry.late,
        )
        return parse_event(entry.payload, device=entry.device, delivery=delivery)

    def stats(self) -> JournalStats:
        """Return a frozen snapshot of the journal."""
        return self._journal.stats()


def last_before(opened: Opened) -> EventKey | None:
    """Return what identifies the last event that earlier runs had."""
    payload = opened.last_event
    return None if payload is None else EventKey(*identity(payload, routing_key(payload)))


def _name_of(lane: Lane) -> str | None:
    """Return a lane's name in the journal."""
    return None if lane.handler.order == "all" else lane.device or NO_DEVICE
