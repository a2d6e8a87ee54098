"""Lanes: when a handler runs.

A lane is (handler, device): serial inside, parallel across. It exists only while it holds
something, and a few empty ones wait for the next device, so one seen and idle costs nothing. Lanes
that hold something stand in the ready-list of the crew (`workers`), whose workers run a round of
them here.

A durable handler's full lane leaves events in the journal and is refilled from there when it is
half empty; each event its handler is done with is told to the journal.

Whatever a handler does to itself, its lane goes on: only `drain` ends the work, and a worker that
somebody else cancelled makes way for a new one. A handler that raises `HaltError` is not called
again: its lanes keep what they hold, the journal what it is owed, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from time import monotonic
from typing import Final

from cti_listener.derived import Derived
from cti_listener.errors import HaltError
from cti_listener.event_base import Event
from cti_listener.lanes import NOTICES, Hole, Keeper, Lane, Unhandled
from cti_listener.log import log
from cti_listener.notices import Notice, Overflow
from cti_listener.router import Handler, Happening
from cti_listener.values import EventKey
from cti_listener.workers import Crew

TURN: Final = 32
"""How many happenings a worker takes from one lane before it looks at the others."""

ROUND: Final = 256
"""After so many happenings, of whatever lanes, the loop has its turn, though no handler waited."""

TOTAL: Final = 100
"""A handler's lanes hold together at most this many times the size of one."""


SPARE: Final = 100
"""So many empty lanes are kept for the next devices: more than one read of the socket needs.

Each keeps up to 9 KiB of what its queue once had."""

SAMPLED: Final = 16
"""One run of a handler in so many is timed, the first one included."""

_NOT_SAMPLED: Final = SAMPLED - 1


class Dispatcher:
    """Runs handlers over lanes.

    Args:
        now: The wall clock.
        tell: Called with each `Overflow`, and the handler that was told already, in its own lane.
        pressure: Called with True when a lane that blocks is full, with False when none is any
            more.
        crashed: Called with an error that is a bug of this module's.

    Attributes:
        waiting: How many happenings are in all lanes now.
        keeper: Told what durable handlers do; None: there is no journal, and no such handler.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        tell: Callable[[Notice, Handler], None],
        pressure: Callable[[bool], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """Start with no lane and no worker."""
        self.waiting = 0
        self.keeper: Keeper | None = None
        self._now = now
        self._tell = tell
        self._pressure = pressure
        self._lanes: defaultdict[int, dict[str | None, Lane]] = defaultdict(dict)  # by handler
        # Lanes as good as new, of handlers that are not durable, and of those that are.
        self._spare: tuple[list[Lane], list[Lane]] = [], []
        self._crew = Crew(self._run_ready, crashed)
        self._full: set[Lane] = set()
        self._halted: set[Handler] = set()
        self._spilled: set[Lane] = set()  # more of theirs is in the journal
        self._empty: asyncio.Future[None] | None = None
        self._excused: set[Lane] = set()  # whose handlers wait for the end themselves
        self._outlasting: set[asyncio.Task[object]] = set()  # who runs those, after the end

    def __repr__(self) -> str:
        lanes, workers = sum(map(len, self._lanes.values())), len(self._crew)
        return f"<Dispatcher {self.waiting} waiting in {lanes} lanes, {workers} workers>"

    # Filling

    def start(self) -> None:
        """Begin to run handlers; what was put before waits until now."""
        self._crew.start()

    def put(self, handler: Handler, device: str | None, happening: Happening, seq: int = 0) -> None:
        """Append to the lane of this handler and device.

        Args:
            handler: Who wants it.
            device: Of which device it is.
            happening: What it is.
            seq: Its place in the journal; 0: it is not there.
        """
        if handler.order == "all":
            device = None
        if handler.halted:
            handler.withheld += 1
        lane = self._lanes[handler.number].get(device)
        if lane is None:
            lane = self._begin(handler, device)
        queue, size = lane.queue, handler.lane_size
        if handler.durable:
            if lane.spill is None and len(queue) < size and handler.waiting < size * TOTAL:
                lane.append(happening, seq)
                handler.waiting += 1
                self.waiting += 1
            else:
                self._take_or_leave(lane, happening, seq)
            return
        queue.append(happening)
        handler.waiting = waiting = handler.waiting + 1
        self.waiting += 1
        if len(queue) > size or waiting > size * TOTAL:
            self._overfull(lane)

    def _begin(self, handler: Handler, device: str | None) -> Lane:
        spare = self._spare[handler.durable]
        if spare:
            lane = spare.pop()
            lane.handler, lane.device = handler, device
        else:
            lane = Lane(handler, device)
        self._lanes[handler.number][device] = lane
        crew = self._crew
        crew.ready.append(lane)
        if not crew.woken:
            crew.see_to_it()
        return lane

    def resume(self, handler: Handler, device: str | None, left: Iterable[int]) -> None:
        """Begin a durable handler's lane with what an earlier run left in the journal for it.

        Args:
            handler: Whose lane.
            device: Which one.
            left: The places of the events there, in order; one at least.
        """
        lane = self._begin(handler, device)
        lane.leave(left)
        self._spilled.add(lane)

    def room(self, handler: Handler) -> int:
        """Tell how many happenings a lane of a durable handler may be refilled with at once."""
        size = handler.lane_size
        return max(1, min(size, size * TOTAL - handler.waiting))

    def _take_or_leave(self, lane: Lane, happening: Happening, seq: int) -> None:
        """Leave what comes in the journal, where a durable handler has enough, if it can be."""
        handler = lane.handler
        if lane.take_or_leave(happening, seq):
            self._count_in(handler)
        elif lane not in self._spilled:
            self._spilled.add(lane)
            log.info("lane_spilled", handler=handler.name, device=lane.device)

    def refilled(self, lane: Lane, found: Sequence[tuple[int, Happening]], asked: int) -> None:
        """Take some of what a lane had left in the journal.

        Args:
            lane: Which lane.
            found: Places and events, the oldest first.
            asked: How many of those that were left were asked for.
        """
        if not self._crew.open:
            return
        for _ in range(lane.refill(found, asked)):
            self._count_in(lane.handler)
        if lane.spill is None:
            self._spilled.discard(lane)
        if lane.parked:
            lane.parked = False
            self._put_back(lane)
            self._crew.see_to_it()
        self._look_whether_empty()

    def _ask_for_more(self, lane: Lane) -> None:
        """Have a spilled lane refilled, if that was not asked for already."""
        spill = lane.spill
        if spill is not None and not spill.asked and self.keeper is not None:
            spill.asked = True
            self.keeper.refill(lane)

    @property
    def oldest(self) -> tuple[datetime, str] | None:
        """When the oldest happening in a lane came, or that a handler is at, and which handler."""
        firsts = (
            (lane.running or (lane.queue and lane.queue[0]), lane) for lane in self._every_lane()
        )
        return min(
            (
                (at, lane.handler.name)
                for one, lane in firsts
                if one and (at := _came(one)) is not None
            ),
            default=None,
        )

    def _every_lane(self) -> Iterator[Lane]:
        for lanes in self._lanes.values():
            yield from lanes.values()

    def _overfull(self, lane: Lane) -> None:
        if lane.handler.overflow == "block" and not lane.handler.halted:
            if not self._full:
                self._pressure(True)  # noqa: FBT003 - the name of the callback says it
            self._full.add(lane)
            return
        droppable = (i for i, one in enumerate(lane.queue) if isinstance(one, Event | Derived))
        index = next(droppable, None)
        if index is None:
            return  # only notices of the listener's own, which are never dropped
        key = _key(lane.queue[index])
        del lane.queue[index]
        self._count_out(lane.handler)
        lane.handler.dropped += 1
        if lane.hole is None:
            lane.hole = Hole(key, key, behind=index)
            log.warning("lane_overflow", handler=lane.handler.name, device=lane.device)
        else:
            lane.hole.last = key
            lane.hole.dropped += 1

    def _count_in(self, handler: Handler) -> None:
        handler.waiting += 1
        self.waiting += 1

    def _count_out(self, handler: Handler) -> None:
        handler.waiting -= 1
        self.waiting -= 1
        if self._empty is not None:
            self._look_whether_empty()

    # Running

    async def _run_ready(  # noqa: C901, PLR0912, PLR0915 - a coroutine a lane costs more than the rest
        self, worker: asyncio.Task[object]
    ) -> bool:
        """Run what is ready, a turn for each lane, until nothing is, or a round is over.

        Nothing more is run either once `drain` has ended the work.

        Returns:
            Whether this worker can go on: False if a handler left context variables behind, or a
            cancellation, which the next one must not find.
        """
        crew = self._crew
        ready, room = crew.ready, ROUND
        while ready and room > 0 and crew.open:
            lane = ready.popleft()
            handler, queue, left = lane.handler, lane.queue, TURN
            if handler.halted:
                continue
            lane.worker = worker
            try:
                while left and not handler.halted:
                    if lane.hole is not None:
                        self._approach(lane, lane.hole)
                    if not queue:
                        break
                    left -= 1
                    happening = lane.running = queue.popleft()
                    seq = lane.seqs.popleft() if handler.durable else 0
                    if ready and not crew.woken:
                        crew.see_to_it()  # this handler may wait; the others must not wait for it
                    began = 0.0 if handler.handled & _NOT_SAMPLED else monotonic()
                    try:
                        if handler.plain:
                            await handler.run(happening)
                        else:
                            await _guarded(handler, happening)
                        handler.handled += 1
                        if seq and self.keeper is not None:
                            self.keeper.done(lane, seq)
                    except BaseException as error:
                        if self._must_end(worker, error):
                            raise
                        if worker.cancelling() and not crew.open:  # what it made of our giving up
                            raise asyncio.CancelledError from error
                        if isinstance(error, HaltError):
                            self._halt(lane, happening, seq)
                            left = 0
                        else:
                            self._failed(lane, happening, seq, error)
                    finally:
                        if began:
                            handler.durations.note(monotonic() - began)
                        lane.running = None
                        handler.waiting -= 1
                        self.waiting -= 1
                        if self._empty is not None:
                            self._look_whether_empty()
                        if self._full or lane.spill is not None:
                            self._mind_room(lane)
                    if worker.cancelling() or not crew.is_as_it_began():
                        return False
            finally:
                self._put_back(lane)
            room -= TURN - left
        return True

    def _must_end(self, worker: asyncio.Task[object], error: BaseException) -> bool:
        """Tell what is meant for the worker from what is the handler's own."""
        match error:
            case KeyboardInterrupt() | SystemExit():
                return True
            case asyncio.CancelledError():
                return not self._crew.open  # `drain` gave up; else somebody cancelled the handler
            case GeneratorExit():  # ours if the loop is gone and nothing runs any more
                return asyncio.current_task(worker.get_loop()) is not worker
            case _:
                return False

    def _put_back(self, lane: Lane) -> None:
        lane.worker = None
        if lane.handler.halted and (lane.queue or lane.spill is not None):
            return
        if lane.queue or lane.hole:
            self._crew.ready.append(lane)
        elif lane.spill is not None:
            lane.parked = True
            self._ask_for_more(lane)
        else:  # gone already, after `drain`
            self._lanes[lane.handler.number].pop(lane.device, None)
            spare = self._spare[lane.handler.durable]
            if len(spare) < SPARE:
                spare.append(lane)

    def _mind_room(self, lane: Lane) -> None:
        """Read on, and refill, once a lane is half empty."""
        if len(lane.queue) > lane.handler.lane_size // 2:
            return
        self._no_longer_full(lane)
        self._ask_for_more(lane)

    def _no_longer_full(self, lane: Lane) -> None:
        if lane in self._full:
            self._full.discard(lane)
            if not self._full:
                self._pressure(False)  # noqa: FBT003 - the name of the callback says it

    def _approach(self, lane: Lane, hole: Hole) -> None:
        """Tell the hole once the notices that stood before it have had their turn."""
        if hole.behind:
            hole.behind -= 1
        else:
            self._tell_hole(lane, hole)

    def _tell_hole(self, lane: Lane, hole: Hole) -> None:
        """Say, where they stood, what was dropped: to this handler if it asks, and to others."""
        lane.hole = None
        handler = lane.handler
        notice = Overflow(
            at=self._now(),
            handler=handler.name,
            device=None if lane.device == NOTICES else lane.device,
            dropped=hole.dropped,
            first=hole.first,
            last=hole.last,
        )
        if Overflow in handler.wish.classes and handler.wish.admits(notice):
            lane.queue.appendleft(notice)
            self._count_in(handler)
        self._tell(notice, handler)

    def _failed(self, lane: Lane, happening: Happening, seq: int, error: BaseException) -> None:
        handler = lane.handler
        handler.failed += 1
        if seq and self.keeper is not None:
            self.keeper.dead(lane, seq, error)
        key = _key(happening) or happening.event_name
        with suppress(Exception):  # a log that cannot be written ends no worker
            log.error("handler_failed", handler=handler.name, key=key, exc_info=error)

    def _halt(self, lane: Lane, happening: Happening, seq: int) -> None:
        """Put back what a handler would not take, and call it no more."""
        handler = lane.handler
        lane.queue.appendleft(happening)
        if handler.durable:
            lane.seqs.appendleft(seq)
        self._count_in(handler)
        if handler.halted:  # it was at several when it did
            handler.withheld += 1
        else:
            handler.withheld = sum(one.owed for one in self._lanes[handler.number].values())
        handler.halted = True
        self._halted.add(handler)
        for one in [one for one in self._full if one.handler is handler]:
            self._no_longer_full(one)

    # Ending

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Wait for the end inside this; if it is a handler that does, `drain` waits not for it."""
        me = asyncio.current_task()
        mine = {one for one in self._every_lane() if me and one.worker is me} - self._excused
        self._excused |= mine
        self._look_whether_empty()
        try:
            yield
        finally:
            self._excused -= mine

    def _look_whether_empty(self) -> None:
        if self._empty is not None and not self._empty.done() and self._is_empty():
            self._empty.set_result(None)

    def _is_empty(self) -> bool:
        if any(not lane.handler.halted for lane in self._spilled - self._excused):
            return False
        waited_for = self.waiting - sum(one.waiting for one in self._halted)
        excused = (lane for lane in self._excused if not lane.handler.halted)
        return waited_for <= sum(1 + len(lane.queue) for lane in excused)

    async def drain(self, timeout: float) -> list[Unhandled]:
        """Wait until every lane is empty, then end the workers; return what was left.

        A handler may call it: what waits for that handler is left, but not what it is at.

        Args:
            timeout: The longest wait, in seconds.
        """
        with self.excused():
            try:
                if self._crew.open and timeout > 0 and not self._is_empty():
                    self._empty = asyncio.get_running_loop().create_future()
                    await asyncio.wait([self._empty], timeout=timeout)
            finally:
                left, workers = self._give_up()
            if workers:
                await asyncio.wait(workers, timeout=1.0)
        return left

    @property
    def is_outlasted(self) -> bool:
        """Whether a handler that waited for the end has yet to return."""
        return any(not worker.done() for worker in self._outlasting)

    async def last_return(self, timeout: float) -> None:
        """Wait for the handlers that waited for the end, that they may return; not for long.

        Args:
            timeout: The longest wait, in seconds.
        """
        if self.is_outlasted:
            await asyncio.wait(self._outlasting, timeout=timeout)

    def _give_up(self) -> tuple[list[Unhandled], list[asyncio.Task[None]]]:
        """Empty every lane and cancel the workers; return what was left, and who was cancelled."""
        left = [self._empty_out(lane) for lane in self._every_lane()]
        self._lanes.clear()
        self._spilled.clear()
        excused = {lane.worker for lane in self._excused if lane.worker is not None}
        self._outlasting = excused
        return [one for one in left if one.happenings], self._crew.close(excused)

    def _empty_out(self, lane: Lane) -> Unhandled:
        """Empty a lane; a handler that refuses to be cancelled finds nothing more in it."""
        running = None if lane in self._excused else lane.running
        left = tuple(one for one in (running, *lane.queue) if one is not None)
        lane.queue.clear()
        lane.seqs.clear()
        lane.hole = lane.spill = None
        return Unhandled(lane.handler.name, None if lane.device == NOTICES else lane.device, left)


def _came(happening: Happening) -> datetime | None:
    """Return when an event came, or a notice was made."""
    return happening.delivery.received_at if isinstance(happening, Event) else happening.at


def _key(happening: Happening) -> EventKey | None:
    """Return what identifies an event, or the one that a notice follows."""
    if isinstance(happening, Event):
        return happening.key
    return happening.event if isinstance(happening, Derived) else None


async def _guarded(handler: Handler, happening: Happening) -> None:
    """Run with the handler's time limit, which holds for each try, and its retries."""

    async def once() -> None:
        async with asyncio.timeout(handler.timeout):
            await handler.run(happening)

    await (once() if handler.retry is None else handler.retry.copy()(once))
