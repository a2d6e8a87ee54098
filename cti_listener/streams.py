"""`events()`, `expect()` and `wait_for()`: events for code that waits instead of being called.

They are fed where events are routed, without a lane, so they never slow the reader; the listener
holds them weakly, so an abandoned one is gone.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from cti_listener.errors import NotRunningError, WaitTimeoutError
from cti_listener.log import log
from cti_listener.router import Happening, Router, Wish

E_co = TypeVar("E_co", covariant=True)


class Tap:
    """What the router holds: it passes happenings on, to whoever still wants them.

    Attributes:
        wish: Which.
        counts: Whether what it takes is wanted by somebody.
    """

    __slots__ = ("_ended", "_offer", "counts", "wish")

    def __init__(
        self,
        wish: Wish,
        offer: Callable[[Happening, int], None],
        ended: Callable[[BaseException | None], None],
        *,
        counts: bool,
    ) -> None:
        self.wish = wish
        self.counts = counts
        self._offer = weakref.WeakMethod(offer)
        self._ended = weakref.WeakMethod(ended)

    def offer(self, happening: Happening, seq: int) -> None:
        """Pass one on, with its place in the journal; 0: it is not there."""
        if receive := self._offer():
            receive(happening, seq)

    def ended(self, error: BaseException | None) -> None:
        """Say that nothing more will come, and why."""
        if receive := self._ended():
            receive(error)


class Tapping:
    """Something with a tap, until it is closed or forgotten."""

    _counts = True

    def __init__(self, wish: Wish, taps: Router[Tap]) -> None:
        self.wish = wish
        self._taps = taps
        self._tap = Tap(wish, self._offer, self._end, counts=self._counts)
        taps.add(self._tap)
        self._finalizer = weakref.finalize(self, taps.discard, self._tap)
        self._waiters: set[asyncio.Future[None]] = set()

    def close(self) -> None:
        """Take no more."""
        self._finalizer()

    def _offer(self, _happening: Happening, _seq: int) -> None:
        raise AssertionError  # each kind has its own

    def _end(self, _error: BaseException | None) -> None:
        raise AssertionError

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class EventStream(Tapping, Generic[E_co]):
    """An asynchronous iterator over events; made by `Listener.events()`.

    It buffers from its making on. A reader too slow for `size` events loses the oldest, which is
    counted in `dropped` and logged. It ends when the listener stops; an error that ended the
    listener is raised.
    """

    def __init__(self, wish: Wish, taps: Router[Tap], size: int) -> None:
        super().__init__(wish, taps)
        self.dropped = 0
        self._buffer: deque[Happening] = deque(maxlen=size)
        self._over = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        counts = f"{len(self._buffer)} waiting, {self.dropped} dropped"
        return f"<EventStream of {self.wish.label}, {counts}>"

    def _offer(self, happening: Happening, _seq: int) -> None:
        if len(self._buffer) == self._buffer.maxlen:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("stream_overflow", stream=self.wish.label, size=self._buffer.maxlen)
        self._buffer.append(happening)
        self._notify()

    def _end(self, error: BaseException | None) -> None:
        self._over, self._error = True, error
        self._notify()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E_co:
        while not self._buffer:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        return self._buffer.popleft()  # type: ignore[return-value]  # the wish admits only these

    async def aclose(self) -> None:
        """Take no more; what is buffered can still be read."""
        self.close()
        self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Tail(Tapping):
    """Everything that is handed over, as it is, with its place in the journal.

    For the admin endpoint, whose readers share one: what it calls must be as quick as an append.
    While it is paused, what is handed over costs what it costs without it. What nobody else wants
    is unrouted all the same.

    Args:
        wish: What is wanted.
        taps: Where it is offered.
        take: Called with each happening and its place; 0: it has none.
        over: Called when nothing more will come; not while it is paused.

    Attributes:
        paused: Whether what is handed over passes by.
    """

    _counts = False

    def __init__(
        self,
        wish: Wish,
        taps: Router[Tap],
        take: Callable[[Happening, int], None],
        over: Callable[[], None],
    ) -> None:
        super().__init__(wish, taps)
        self._take = take
        self._over = over
        self.paused = False

    def pause(self) -> None:
        """Let what is handed over from now on pass by."""
        self._taps.discard(self._tap)
        self.paused = True

    def resume(self) -> None:
        """Take what is handed over from now on."""
        self._taps.add(self._tap)
        self.paused = False

    def _offer(self, happening: Happening, seq: int) -> None:
        self._take(happening, seq)

    def _end(self, _error: BaseException | None) -> None:
        self._over()


class Expectation(Tapping, Generic[E_co]):
    """One event that is waited for; made by `Listener.expect()`.

    The body of `async with` runs with the ears already open; its end waits for the event::

        async with listener.expect(Established, call_id=call) as expected:
            await crm.dial()
        print(expected.event)
    """

    def __init__(self, wish: Wish, taps: Router[Tap], timeout: float | None) -> None:
        super().__init__(wish, taps)
        self._timeout = timeout
        self._seen: Happening | None = None
        self._over: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Expectation of {self.wish.label}, {'seen' if self._seen else 'not yet seen'}>"

    @property
    def event(self) -> E_co:
        """The event.

        Raises:
            NotRunningError: It has not come yet.
        """
        if self._seen is None:
            raise NotRunningError(f"no {self.wish.label} yet; leave the 'async with' block first")
        return self._seen  # type: ignore[return-value]  # the wish admits only these

    def _offer(self, happening: Happening, _seq: int) -> None:
        if self._seen is None:
            self._seen = happening
            self.close()
            self._notify()

    def _end(self, error: BaseException | None) -> None:
        self._over = error or NotRunningError("the listener stopped")
        self._notify()

    async def seen(self) -> E_co:
        """Wait for the event.

        Raises:
            WaitTimeoutError: It did not come in time.
            NotRunningError: The listener stopped first.
        """
        try:
            async with asyncio.timeout(self._timeout):
                while self._seen is None:
                    if self._over is not None:
                        raise self._over
                    await self._wait()
        except TimeoutError:
            raise WaitTimeoutError(self.wish.label, self._timeout or 0.0) from None
        finally:
            self.close()
        return self.event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.seen()
        else:
            self.close()
