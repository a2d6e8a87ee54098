"""The engine: a listener's parts, put together, begun and ended in order.

The source brings, the pipeline takes, the journal keeps, the dispatcher runs. What goes on beside
the source (signs of life, refills, holds) belongs to the run, and ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final

from cti_listener.clock import Clock
from cti_listener.commits import Commits
from cti_listener.dedupe import Dedupe
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import NotRunningError
from cti_listener.feeds import Feeds
from cti_listener.following import Following
from cti_listener.handover import Handover
from cti_listener.inquiry import Inquiry
from cti_listener.interest import Interest
from cti_listener.journal import Journal
from cti_listener.lanes import Unhandled
from cti_listener.pipeline import Pipeline
from cti_listener.sources.base import Source
from cti_listener.stats import Stats
from cti_listener.tracking import Tracking
from cti_listener.watchdog import Watchdog

TURNS: Final = 2
"""After so many turns of the loop each of several feeds has begun to stop."""

EXPIRY_INTERVAL: Final = 15.0
"""How often calls are looked for that have shown no sign for too long, in seconds."""


class Engine:
    """Runs once, from `run()` to `stop()`.

    Args:
        source: Where events come from.
        interest: Who is asked for.
        clock: The one clock.
        dedupe: The window of what was seen.
        journal: Where events are kept; None: nowhere.
        zone: Where the server's clock hangs.
        feeds: What keeps several feeds in step; None: there is one.
        hold: For how long a feed that comes back is held back at most, in seconds.
        watchdog: Watches the loop.
        make_tracking: Makes what tracks calls and agents, given the classes that are wanted.
        make_inquiry: Makes what asks how devices stand, given what `Inquiry` takes of us; None:
            nobody can tell.

    Attributes:
        source: As above.
        handover: Who wants what.
        dispatcher: When it runs.
        durable: Whether there is a journal.
        stopping: Whether it was told to stop.
    """

    def __init__(
        self,
        source: Source,
        interest: Interest,
        *,
        clock: Clock,
        dedupe: Dedupe,
        journal: Journal | None,
        zone: tzinfo,
        feeds: Feeds | None,
        hold: float,
        watchdog: Watchdog,
        make_tracking: Callable[[Container[object]], Tracking],
        make_inquiry: Callable[..., Inquiry] | None = None,
    ) -> None:
        """Put the parts together; nothing is opened yet."""
        self.source = source
        self.handover = Handover()
        self.durable = journal is not None
        self.stopping = False
        self._interest = interest
        self._clock = clock
        self._watchdog = watchdog
        self._commits = None if journal is None else self._keep_in(journal, zone)
        self._following = Following(
            partial(make_tracking, self.handover.wanted), self.handover, clock, self._commits
        )
        self._pipeline = Pipeline(
            interest,
            dedupe,
            clock,
            self.handover,
            commits=self._commits,
            feeds=feeds,
            hold=hold,
            later=self._later,
            following=self._following,
            inquiry=make_inquiry
            and make_inquiry(
                spawn=self._spawn,
                wanted=interest.includes_device,
                adopt=self._following.adopt,
                passed=self._following.passed,
                settled=self._following.leave,
            ),
        )
        self.dispatcher = Dispatcher(
            now=clock.now,
            tell=self.handover.tell,
            pressure=partial(self._press, "lanes"),
            crashed=self.crash,
        )
        self.handover.attach(self.dispatcher)
        self._pressing: set[str] = set()
        self._running: asyncio.Timeout | None = None
        self._beside: asyncio.TaskGroup | None = None
        self._beside_source: set[asyncio.Task[None]] = set()  # what goes on there, until the end
        self._crashed: BaseException | None = None
        self._stopped: asyncio.Event | None = None
        self._end: asyncio.Task[list[Unhandled]] | None = None

    def _keep_in(self, journal: Journal, zone: tzinfo) -> Commits:
        return Commits(
            journal,
            self.handover,
            clock=self._clock,
            zone=zone,
            pressure=partial(self._press, "journal"),
            failed=self.crash,
        )

    @property
    def began(self) -> bool:
        """Whether it runs, or did."""
        return self._stopped is not None

    @property
    def given(self) -> int:
        """The place in the journal up to which all was handed over; 0 without one."""
        return 0 if self._commits is None else self._commits.given

    @property
    def journal_id(self) -> str | None:
        """What tells the journal from one in its place; None: there is none, or not yet."""
        return None if self._commits is None else self._commits.identity

    def first_subscribed(self) -> asyncio.Future[None]:
        """Return what is done when the first subscription stands; ask before it runs."""
        self._pipeline.standing.first = asyncio.get_running_loop().create_future()
        return self._pipeline.standing.first

    async def run(self) -> None:
        """Do what `Listener.run` says, and raise as it does."""
        if self._stopped is not None:
            raise NotRunningError("this listener runs already, or did; make a new one")
        self._stopped = asyncio.Event()
        if self.stopping:
            self._stopped.set()
            return  # it was stopped before it began
        self._watchdog.start()
        async with asyncio.TaskGroup() as self._beside:
            if self._commits is not None:
                self._spawn(self._keep_life())
            self._spawn(self._expire_calls())
            error = await self._live()
            for task in self._beside_source:
                task.cancel()
        self._beside = None
        if error is not None:
            raise error

    async def _live(self) -> Exception | None:
        """Run to the end; return what ended it, if anything but `stop()` did."""
        error: Exception | None = None
        try:
            async with asyncio.timeout(None) as self._running:
                self.dispatcher.start()
                await self._open()
                await self.source.run(self._pipeline, self._interest)
            await self._stopped_by_all()
        except BaseException as raised:  # noqa: BLE001 - what is not for us is raised below
            ending = self._crashed or raised
            error = ending if isinstance(ending, Exception) else None
            await self.stop(drain=0.0 if isinstance(raised, asyncio.CancelledError) else 8.0)
            if error is None:
                raise ending from None
        finally:
            if self._commits is not None:  # what the handler that called `stop()` did counts too
                await self.dispatcher.last_return(1.0)
                await self._commits.close()
            self._watchdog.stop()
            self._pipeline.standing.ended()
            self._end_taps(error)
        return error

    async def _open(self) -> None:
        """Go on where the journal ended, unless we are stopped before it is open."""
        if self._commits is None:
            return
        try:
            opened = await self._commits.open(self.dispatcher)
        except NotRunningError:
            if not self.stopping:
                raise
            return
        self._pipeline.resume(opened)
        await self._following.resume(opened)

    async def _stopped_by_all(self) -> None:
        """Wait for the end of `stop()`; raise what broke meanwhile."""
        if self._stopped is not None:
            await self._stopped.wait()
        if self._crashed is not None:
            raise self._crashed

    async def stop(self, drain: float = 8.0) -> list[Unhandled]:
        """Do what `Listener.stop` says."""
        self.stopping = True
        if self._end is None:
            self._end = asyncio.get_running_loop().create_task(self._stop(drain), name="cti-stop")
        with self.dispatcher.excused():
            return await asyncio.shield(self._end)

    async def _stop(self, drain: float) -> list[Unhandled]:
        commits, clock = self._commits, self._clock
        try:
            until = clock.monotonic() + drain
            self._pipeline.leave()
            if commits is not None:
                commits.note_life(self._last_sign())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.source.stop())
                # What it still brings is in the lanes before they are drained.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                self._following.leave()
                if commits is not None:
                    await commits.settle(drain)
                left = await self.dispatcher.drain(max(0.0, until - clock.monotonic()))
            if commits is not None and not self.dispatcher.is_outlasted:
                await commits.close()
            return left
        finally:
            if self._stopped is None:
                self._end_taps(None)
            else:
                self._stopped.set()

    def track(self) -> Tracking:
        """Track calls and agents from now on, if that was not asked for before."""
        return self._following.begin()

    def added(self, devices: Iterable[str]) -> None:
        """Note that these are listened to from now on."""
        if self._beside is not None:
            self._pipeline.inquire(devices)

    def stats(self) -> Stats:
        """Return a frozen snapshot."""
        watch = self._watchdog
        return replace(
            self._pipeline.stats(),
            blocked=watch.blocked,
            longest_block=watch.longest,
            loop_lag=watch.lag.distribution(),
            subscriptions=getattr(self.source, "subscriptions", 0),  # a user's source may lack it
            draining=self.stopping,
        )

    # Private

    def _end_taps(self, error: Exception | None) -> None:
        """Tell streams and expectations that nothing more will come."""
        for tap in self.handover.taps:
            tap.ended(error)

    def _press(self, who: str, full: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Pause reading while a lane that blocks is full, or the disk is behind."""
        before = bool(self._pressing)
        (self._pressing.add if full else self._pressing.discard)(who)
        if self._pressing and not before:
            self.source.pause()
        elif before and not self._pressing:
            self.source.resume()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the source, until it ends or the listener does."""
        assert self._beside is not None  # noqa: S101 - for the type checker: it runs
        task = self._beside.create_task(self._watched(work))
        self._beside_source.add(task)
        task.add_done_callback(self._beside_source.discard)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - told to `run()`, which raises it
            self.crash(error)

    async def _keep_life(self) -> None:
        assert self._commits is not None  # noqa: S101 - for the type checker
        await self._commits.run(self._last_sign)

    async def _expire_calls(self) -> None:
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL)
            self._following.expire()

    def _last_sign(self) -> datetime | None:
        """Return up to when nothing is missed if we die now."""
        return self._pipeline.covered(self.source.last_signs)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call after so many seconds, if the listener runs then."""

        async def wait() -> None:
            await self._clock.sleep(seconds)
            call()

        if self._beside is not None:
            self._spawn(wait())

    def crash(self, error: BaseException) -> None:
        """End `run()` with a bug of ours; nobody else would ever hear of it."""
        self._crashed = self._crashed or error
        if self._running is not None and not self.stopping:
            self._running.reschedule(asyncio.get_running_loop().time())
