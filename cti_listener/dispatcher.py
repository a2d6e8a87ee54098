"""Lanes: when a handler runs.

A lane is (handler, device): serial inside, parallel across. It exists only while it holds
something, so a device seen and idle costs nothing. Lanes that hold something stand in a ready-list;
workers take them from there. Only one worker looks for work at a time, and it wakes the next one
before it runs a handler, which may wait: so a burst of handlers that never wait costs one worker,
not a task each.

Whatever a handler does to itself, its lane goes on: only `drain` ends the work, and a worker that
somebody else cancelled makes way for a new one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

from cti_listener.event_base import Event
from cti_listener.lanes import NOTICES, Hole, Lane, Unhandled
from cti_listener.log import log
from cti_listener.notices import Notice, Overflow
from cti_listener.router import Handler, Happening

TURN: Final = 32
"""How many happenings a worker takes from one lane before it looks at the others."""

SPARE: Final = 8
"""How many workers stay when there is nothing to do."""

TOTAL: Final = 100
"""A handler's lanes hold together at most this many times the size of one."""


class Dispatcher:
    """Runs handlers over lanes.

    Args:
        now: The wall clock.
        tell: Called with each `Overflow`, and the handler that was told already, in its own lane.
        pressure: Called with True when a lane that blocks is full, with False when none is any
            more.
        crashed: Called with an error that is a bug of this module's.
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
        self._now = now
        self._tell = tell
        self._pressure = pressure
        self._crashed = crashed
        self._lanes: dict[tuple[int, str | None], Lane] = {}
        self._ready: deque[Lane] = deque()
        self._full: set[Lane] = set()
        # Not a task group: its end waits for every task, and a handler may refuse to be cancelled.
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._woken = False  # a worker was woken and has not begun
        self._empty: asyncio.Future[None] | None = None
        self._excused: set[Lane] = set()  # whose handlers wait for the end themselves
        self._open = False
        self._context = contextvars.copy_context()  # every handler begins with

    def __repr__(self) -> str:
        lanes, workers = len(self._lanes), len(self._workers)
        return f"<Dispatcher {self.waiting} waiting in {lanes} lanes, {workers} workers>"

    # Filling

    def start(self) -> None:
        """Begin to run handlers; what was put before waits until now."""
        self._open = True
        self._context = contextvars.copy_context()
        if self._ready:
            self._wake()

    def put(self, handler: Handler, device: str | None, happening: Happening) -> None:
        """Append to the lane of this handler and device."""
        if handler.order == "all":
            device = None
        lane = self._lanes.get((handler.number, device))
        if lane is None:
            lane = self._lanes[handler.number, device] = Lane(handler, device)
            self._ready.append(lane)
            if not self._woken and self._open:
                self._wake()
        lane.queue.append(happening)
        self._count_in(handler)
        if len(lane.queue) > handler.lane_size or handler.waiting > handler.lane_size * TOTAL:
            self._overfull(lane)

    def _overfull(self, lane: Lane) -> None:
        if lane.handler.overflow == "block":
            if not self._full:
                self._pressure(True)  # noqa: FBT003 - the name of the callback says it
            self._full.add(lane)
            return
        index = next((i for i, one in enumerate(lane.queue) if isinstance(one, Event)), None)
        if index is None:
            return  # only notices, which are never dropped
        event = lane.queue[index]
        del lane.queue[index]
        assert isinstance(event, Event)  # noqa: S101 - for the type checker
        self._count_out(lane.handler)
        lane.handler.dropped += 1
        if lane.hole is None:
            lane.hole = Hole(event, event, behind=index)
            log.warning("lane_overflow", handler=lane.handler.name, device=lane.device)
        else:
            lane.hole.last = event
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

    def _wake(self) -> None:
        if not self._open:
            return
        self._woken = True
        while self._idle:
            sleeper = self._idle.pop()
            if not sleeper.done():
                sleeper.set_result(None)
                return
        worker = asyncio.get_running_loop().create_task(
            self._work(), name="cti-worker", context=self._context.copy()
        )
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if worker.cancelled() or error is not None:
            self._woken = False  # it may be the one that was woken, and what it was woken for waits
            if self._ready:
                self._wake()
        if error is not None:
            self._crashed(error)

    async def _work(self) -> None:
        """Take lanes from the ready-list, until there are workers to spare."""
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - for the type checker
        self._woken = False
        while self._open:
            if not self._ready:
                if len(self._idle) >= SPARE:
                    return
                sleeper = asyncio.get_running_loop().create_future()
                self._idle.append(sleeper)
                await sleeper
                self._woken = False
                continue
            lane = self._ready.popleft()
            lane.worker = worker
            if not await self._take_turn(lane, worker):
                if self._ready and not self._woken:
                    self._wake()
                return

    async def _take_turn(self, lane: Lane, worker: asyncio.Task[object]) -> bool:
        """Run some of what a lane holds; put it back if that was not all.

        Returns:
            Whether this worker can go on: False if a handler left context variables behind, or a
            cancellation, which the next one must not find.
        """
        handler, queue = lane.handler, lane.queue
        try:
            for _ in range(TURN):
                if lane.hole is not None:
                    self._approach(lane, lane.hole)
                if not queue:
                    break
                happening = lane.running = queue.popleft()
                if self._ready and not self._woken:
                    self._wake()  # this handler may wait, and the others must not wait for it
                try:
                    await (
                        handler.run(happening) if handler.plain else _guarded(handler, happening)
                    )
                    handler.handled += 1
                except BaseException as error:
                    if self._must_end(worker, error):
                        raise
                    self._failed(handler, happening, error)
                finally:
                    lane.running = None
                    self._count_out(handler)
                    if self._full and lane in self._full and len(queue) <= handler.lane_size // 2:
                        self._relieve(lane)
                if self._left_something() or worker.cancelling():
                    return False
        finally:
            self._put_back(lane)
        return True

    def _left_something(self) -> bool:
        """Tell whether a handler left context variables behind, which no other must find."""
        try:
            return contextvars.copy_context() != self._context
        except Exception:  # noqa: BLE001 - values that will not be compared are new ones
            return True

    def _must_end(self, worker: asyncio.Task[object], error: BaseException) -> bool:
        """Tell what is meant for the worker from what is the handler's own."""
        match error:
            case KeyboardInterrupt() | SystemExit():
                return True
            case asyncio.CancelledError():
                return not self._open  # `drain` gave up; else somebody cancelled the handler
            case GeneratorExit():  # ours if the loop is gone and nothing runs any more
                return asyncio.current_task(worker.get_loop()) is not worker
            case _:
                return False

    def _put_back(self, lane: Lane) -> None:
        lane.worker = None
        if lane.queue or lane.hole:
            self._ready.append(lane)
        else:  # gone already, after `drain`
            self._lanes.pop((lane.handler.number, lane.device), None)

    def _relieve(self, lane: Lane) -> None:
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
            first=hole.first.key,
            last=hole.last.key,
        )
        if Overflow in handler.wish.classes and handler.wish.admits(notice):
            lane.queue.appendleft(notice)
            self._count_in(handler)
        self._tell(notice, handler)

    def _failed(self, handler: Handler, happening: Happening, error: BaseException) -> None:
        handler.failed += 1
        key = happening.key if isinstance(happening, Event) else happening.event_name
        with suppress(Exception):  # a log that cannot be written ends no worker
            log.error("handler_failed", handler=handler.name, key=key, exc_info=error)

    # Ending

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Wait for the end inside this; if it is a handler that does, `drain` waits not for it."""
        me = asyncio.current_task()
        mine = {one for one in self._lanes.values() if me and one.worker is me} - self._excused
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
        return self.waiting <= sum(1 + len(lane.queue) for lane in self._excused)

    async def drain(self, timeout: float) -> list[Unhandled]:
        """Wait until every lane is empty, then end the workers; return what was left.

        A handler may call it: what waits for that handler is left, but not what it is at.

        Args:
            timeout: The longest wait, in seconds.
        """
        with self.excused():
            try:
                if self._open and timeout > 0 and not self._is_empty():
                    self._empty = asyncio.get_running_loop().create_future()
                    await asyncio.wait([self._empty], timeout=timeout)
            finally:
                left, workers = self._give_up()
            if workers:
                await asyncio.wait(workers, timeout=1.0)
        return left

    def _give_up(self) -> tuple[list[Unhandled], list[asyncio.Task[None]]]:
        """Empty every lane and cancel the workers; return what was left, and who was cancelled."""
        self._open = False
        left = [self._empty_out(lane) for lane in self._lanes.values()]
        self._lanes.clear()
        self._ready.clear()
        excused = {lane.worker for lane in self._excused}
        workers = [worker for worker in self._workers if worker not in excused]
        for worker in workers:
            worker.cancel()
        return [one for one in left if one.happenings], workers

    def _empty_out(self, lane: Lane) -> Unhandled:
        """Empty a lane; a handler that refuses to be cancelled finds nothing more in it."""
        running = None if lane in self._excused else lane.running
        left = tuple(one for one in (running, *lane.queue) if one is not None)
        lane.queue.clear()
        lane.hole = None
        return Unhandled(lane.handler.name, None if lane.device == NOTICES else lane.device, left)


async def _guarded(handler: Handler, happening: Happening) -> None:
    """Run with the handler's time limit, which holds for each try, and its retries."""

    async def once() -> None:
        async with asyncio.timeout(handler.timeout):
            await handler.run(happening)

    await (once() if handler.retry is None else handler.retry.copy()(once))
