"""The facade: what users embed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cti_listener.clock import Clock, SystemClock
from cti_listener.dedupe import Dedupe
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import ConfigurationError, HandlerError, NotRunningError
from cti_listener.event_base import Event
from cti_listener.interest import Interest
from cti_listener.lanes import Unhandled
from cti_listener.notices import Notice
from cti_listener.pipeline import Pipeline
from cti_listener.registration import Retry, as_coroutine_function, make_retry
from cti_listener.router import Handler, Kind, Order, WhenFull, is_half_an_id, make_wish
from cti_listener.sources.base import Source
from cti_listener.sources.options import Auth, ConnectionKeywords, ConnectionOptions, WireChoice
from cti_listener.sources.websocket import WebSocketSource
from cti_listener.stats import Stats
from cti_listener.streams import EventStream, Expectation
from cti_listener.watchdog import Watchdog

F = TypeVar("F", bound=Callable[..., object])
H = TypeVar("H", bound=Event | Notice)
Where = Callable[[Any], object]


class Listener:
    """Listens to a CTI server and calls your handlers, for ever, through every reconnect.

    Args:
        url: The endpoint, `ws://` or `wss://`; several are tried in turn. Or a `Source` of your
            own.
        namespace: The contact centre's domain, as `zhen04.cc`: completes short ids; without devices
            and agents it means everybody in it.
        devices: Devices to listen to, `8002` or `8002@zhen04.cc`.
        agents: Agents to listen to, wherever they sit; the call events of their devices included.
        wire: `stomp`, `json` or `auto`: what the server chooses, else what the URL's path says.
        auth: `Credentials`, or a coroutine function that returns some, asked before every attempt.
        zone: Where the server's clock hangs.
        lane_size: How many happenings wait for one handler and device before the lane is full.
        dedupe_window: How many events at least are remembered to tell repeats by.
        dedupe_age: For how long at least, in seconds.
        block_limit: Whoever holds up the event loop for so many seconds is named in the log, with
            the stack; 0: nobody is.
        clock: The clock; for tests.
        **connection: All else about the connection, see `ConnectionOptions`.

    Raises:
        ConfigurationError: Something cannot be done as asked; it says what to do.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Source,
        *,
        namespace: str | None = None,
        devices: Sequence[str] = (),
        agents: Sequence[str] = (),
        wire: WireChoice = "auto",
        auth: Auth | None = None,
        zone: str | tzinfo = "Asia/Shanghai",
        lane_size: int = 1000,
        dedupe_window: int = 100_000,
        dedupe_age: float = 3600.0,
        block_limit: float = 1.0,
        clock: Clock | None = None,
        **connection: Unpack[ConnectionKeywords],
    ) -> None:
        """Keep what to listen to; nothing is opened before `run()` or `async with`."""
        _refuse_ids(devices, agents)
        for name, limit in (
            ("dedupe_window", dedupe_window),
            ("dedupe_age", dedupe_age),
            ("lane_size", lane_size),
        ):
            if limit <= 0:
                raise ConfigurationError(name, "must be more than 0")
        self._clock = clock or SystemClock()
        self._interest = Interest(namespace, devices, agents)
        self._source = (
            WebSocketSource(
                [url] if isinstance(url, str) else list(url),
                wire=wire,
                auth=auth,
                options=ConnectionOptions.from_keywords(connection),
                zone=_zone(zone),
                clock=self._clock,
            )
            if isinstance(url, str | Sequence)
            else url
        )
        self._watchdog = Watchdog(block_limit)
        self._lane_size = lane_size
        self._pipeline = Pipeline(self._interest, Dedupe(dedupe_window, dedupe_age), self._clock)
        self._dispatcher = Dispatcher(
            now=self._clock.now,
            tell=self._pipeline.tell,
            pressure=self._press,
            crashed=self._crash,
        )
        self._pipeline.attach(self._dispatcher)
        self._task: asyncio.Task[None] | None = None
        self._running: asyncio.Timeout | None = None
        self._crashed: BaseException | None = None
        self._stopping = False
        self._stopped: asyncio.Event | None = None
        self._end: asyncio.Task[list[Unhandled]] | None = None

    def __repr__(self) -> str:
        stats = self.stats()
        state = "stopped" if self._stopping else "connected" if stats.connected else "not connected"
        where = ", ".join(self._source.endpoints)
        counts = f"{stats.distinct} events, {stats.waiting} waiting"
        return f"<Listener {where} {self._interest!r} {state}, {counts}>"

    # Handlers

    def on(
        self,
        *kinds: Kind,
        device: str | None = None,
        agent: str | None = None,
        own_device: bool | None = None,
        where: Where | None = None,
        order: Order = "device",
        overflow: WhenFull = "drop_oldest",
        lane_size: int | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        run_in_thread: bool = False,
        name: str | None = None,
        **attributes: object,
    ) -> Callable[[F], F]:
        """Register the coroutine function below; before or after the start.

        Args:
            *kinds: Event classes, notice classes, or wire names; none: every event.
            device: Only events of this device (its routing key), and notices that concern it.
            agent: Only agent events of this agent.
            own_device: Only events that happen about the device itself, or (False) about another.
            where: A predicate; called where events are routed, so it must be quick.
            order: One event at a time per device, the devices side by side; or `all`: one at a time
                altogether, in arrival order.
            overflow: When its lane is full: drop the oldest and tell by `Overflow`, or `block`:
                pause reading.
            lane_size: How many wait before a lane is full; the listener's by default.
            timeout: For one try, in seconds.
            retry: How many more times to try, or a tenacity strategy.
            run_in_thread: The function is a plain one; run it in a thread.
            name: For logs and counts; the function's name by default.
            **attributes: What must equal, as `call_id="..."`.

        Raises:
            HandlerError: It cannot work as asked.
        """
        wish = make_wish(
            kinds,
            namespace=self._interest.namespace,
            device=device,
            agent=agent,
            where=where,
            own_device=own_device,
            **attributes,
        )

        def register(function: F) -> F:
            run = as_coroutine_function(function, run_in_thread=run_in_thread)
            self._pipeline.handlers.add(
                Handler(
                    name=self._name(name, function),
                    wish=wish,
                    run=run,
                    order=order,
                    lane_size=self._lane_size if lane_size is None else lane_size,
                    overflow=overflow,
                    timeout=timeout,
                    retry=make_retry(retry),
                )
            )
            return function

        return register

    def _name(self, name: str | None, function: Callable[..., object]) -> str:
        """Choose a name that no other handler has."""
        taken = {handler.name for handler in self._pipeline.handlers}
        if name is not None:
            if name in taken:
                raise HandlerError(name, "is another handler's name already; choose one of its own")
            return name
        wished = getattr(function, "__qualname__", type(function).__qualname__)
        numbered = (f"{wished}#{number}" for number in range(2, len(taken) + 3))
        return next(one for one in (wished, *numbered) if one not in taken)

    # Waiting for events

    @overload
    def events(self, kind: type[H], /, *, size: int = ..., **filters: Any) -> EventStream[H]: ...
    @overload
    def events(self, /, *kinds: Kind, size: int = ..., **filters: Any) -> EventStream[Any]: ...

    def events(self, /, *kinds: Any, size: int = 1000, **filters: Any) -> EventStream[Any]:
        """Return an asynchronous iterator over events, from now on.

        Args:
            *kinds: As for `on`.
            size: How many events it buffers; then it loses the oldest, see `EventStream.dropped`.
            **filters: `device`, `agent`, `where` and attributes, as for `on`.

        Raises:
            HandlerError: The filters cannot match, or the size is less than 1.
            NotRunningError: The listener is stopped.
        """
        self._refuse_if_stopped()
        if size < 1:
            raise HandlerError("size", "must be 1 or more")
        wish = make_wish(kinds, namespace=self._interest.namespace, **filters)
        return EventStream(wish, self._pipeline.taps, size)

    @overload
    def expect(
        self, kind: type[H], /, *, timeout: float | None = ..., **filters: Any
    ) -> Expectation[H]: ...
    @overload
    def expect(
        self, /, *kinds: Kind, timeout: float | None = ..., **filters: Any
    ) -> Expectation[Any]: ...

    def expect(
        self, /, *kinds: Any, timeout: float | None = None, **filters: Any
    ) -> Expectation[Any]:
        """Wait for one event from before the action that causes it; for `async with`.

        Args:
            *kinds: As for `on`.
            timeout: The longest wait from the end of the block, in seconds; None: for ever.
            **filters: `device`, `agent`, `where` and attributes, as for `on`.

        Raises:
            HandlerError: The filters cannot match.
            NotRunningError: The listener is stopped.
        """
        self._refuse_if_stopped()
        wish = make_wish(kinds, namespace=self._interest.namespace, **filters)
        return Expectation(wish, self._pipeline.taps, timeout)

    @overload
    async def wait_for(
        self, kind: type[H], /, *, timeout: float | None = ..., **filters: Any
    ) -> H: ...
    @overload
    async def wait_for(
        self, /, *kinds: Kind, timeout: float | None = ..., **filters: Any
    ) -> Any: ...

    async def wait_for(self, /, *kinds: Any, timeout: float | None = None, **filters: Any) -> Any:
        """Return the next such event.

        Args:
            *kinds: As for `on`.
            timeout: The longest wait, in seconds; None: for ever.
            **filters: `device`, `agent`, `where` and attributes, as for `on`.

        Raises:
            WaitTimeoutError: It did not come in time.
            HandlerError: The filters cannot match.
            NotRunningError: The listener is stopped, or stopped meanwhile.
        """
        async with self.expect(*kinds, timeout=timeout, **filters) as expected:
            pass
        return expected.event

    # Whom to listen to

    async def add(self, *, devices: Sequence[str] = (), agents: Sequence[str] = ()) -> None:
        """Listen to these as well; return when their subscription stands, if connected.

        A JSON endpoint that is told by its URL is connected to anew: a `Gap` for the others.

        Raises:
            ConfigurationError: A short id without a namespace, or half an id.
        """
        _refuse_ids(devices, agents)
        before = set(self._interest.devices), set(self._interest.agents)
        self._interest.add(devices, agents)
        await self._follow(before)

    async def remove(self, *, devices: Sequence[str] = (), agents: Sequence[str] = ()) -> None:
        """Listen to these no longer.

        Raises:
            ConfigurationError: One was not listened to, or nobody would be left.
        """
        _refuse_ids(devices, agents)
        before = set(self._interest.devices), set(self._interest.agents)
        self._interest.remove(devices, agents)
        await self._follow(before)

    async def _follow(self, before: tuple[set[str], set[str]]) -> None:
        """Have the source follow the changed wish; undo it if it cannot be written on the wire."""
        try:
            await self._source.update()
        except ConfigurationError:
            self._interest.devices, self._interest.agents = before
            raise

    # Life

    async def run(self) -> None:
        """Listen until `stop()`, or until something fatal.

        Raises:
            RefusedError: The server said no before it ever said yes.
            UnreachableError: `max_attempts` failed in a row.
            NotRunningError: It runs already, or ran before.
        """
        if self._stopped is not None:
            raise NotRunningError("this listener runs already, or did; make a new one")
        self._stopped = asyncio.Event()
        if self._stopping:
            self._stopped.set()
            return  # it was stopped before it began
        self._dispatcher.start()
        self._watchdog.start()
        error: BaseException | None = None
        try:
            async with asyncio.timeout(None) as self._running:
                await self._source.run(self._pipeline, self._interest)
            await self._stopped.wait()
            if self._crashed is not None:
                raise self._crashed  # noqa: TRY301 - while the rest was handled
        except BaseException as raised:
            error = self._crashed or raised
            await self.stop(drain=0.0 if isinstance(raised, asyncio.CancelledError) else 8.0)
            if error is raised:
                raise
            raise error from None
        finally:
            self._watchdog.stop()
            self._pipeline.ended()
            self._end_taps(error if isinstance(error, Exception) else None)

    async def stop(self, drain: float = 8.0) -> list[Unhandled]:
        """Take no more events, close the connection, let the handlers finish.

        Whoever calls it again waits for the same end, and gets the same answer; who waits no longer
        does not undo it.

        Args:
            drain: How long the handlers may take, in seconds; the longest wait is this and the
                connection's close timeout, side by side.

        Returns:
            What was left unhandled, by lane; empty when all is done.
        """
        self._stopping = True
        if self._end is None:
            self._end = asyncio.get_running_loop().create_task(self._stop(drain), name="cti-stop")
        with self._dispatcher.excused():
            return await asyncio.shield(self._end)

    async def _stop(self, drain: float) -> list[Unhandled]:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._source.stop())
                # What it still brings is in the lanes before they are drained.
                await asyncio.sleep(0)
                return await self._dispatcher.drain(drain)
        finally:
            if self._stopped is None:
                self._end_taps(None)
            else:
                self._stopped.set()

    async def __aenter__(self) -> Self:
        """Start; return when the first subscription stands.

        Raises:
            CtiError: As `run()`.
        """
        subscribed = self._pipeline.first_subscribed = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self.run(), name="cti-listener")
        try:
            await asyncio.wait((self._task, subscribed), return_when="FIRST_COMPLETED")
        except asyncio.CancelledError:
            await self.stop(drain=0.0)
            raise
        if self._task.done():
            await self._task
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; raise what ended it early, if anything did."""
        await self.stop()
        if self._task is not None:
            await asyncio.wait((self._task,))
            if error is None:
                self._task.result()

    def stats(self) -> Stats:
        """Return a frozen snapshot of all counts, the connection, the handlers and the gaps."""
        watch = self._watchdog
        return replace(self._pipeline.stats(), blocked=watch.blocked, longest_block=watch.longest)

    # Private

    def _refuse_if_stopped(self) -> None:
        if self._stopping:
            raise NotRunningError("the listener is stopped")

    def _end_taps(self, error: Exception | None) -> None:
        """Tell streams and expectations that nothing more will come."""
        for tap in self._pipeline.taps:
            tap.ended(error)

    def _press(self, full: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Pause reading while a lane that blocks is full."""
        if full:
            self._source.pause()
        else:
            self._source.resume()

    def _crash(self, error: BaseException) -> None:
        """End `run()` with a bug of ours; nobody else would ever hear of it."""
        self._crashed = self._crashed or error
        if self._running is not None and not self._stopping:
            self._running.reschedule(asyncio.get_running_loop().time())


def _refuse_ids(devices: Sequence[str], agents: Sequence[str]) -> None:
    """Refuse what would be taken apart into letters, and ids that nobody can have."""
    for name, ids in (("devices", devices), ("agents", agents)):
        if isinstance(ids, str):
            raise ConfigurationError(name, f"is a list of ids: {name}=[{ids!r}]")
        for one in ids:
            if "@" in one and is_half_an_id(one):
                problem = f"{one!r} is half an id; write 8002, or 8002@zhen04.cc"
                raise ConfigurationError(name.removesuffix("s"), problem)


def _zone(zone: str | tzinfo) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(
            "zone", f"{zone!r} is no time zone; write it as Asia/Shanghai"
        ) from None
