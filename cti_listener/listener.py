"""The facade: what users embed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from cti_listener.clock import Clock, SystemClock
from cti_listener.dedupe import Dedupe
from cti_listener.derived import Derived
from cti_listener.engine import Engine
from cti_listener.errors import ConfigurationError, HandlerError, NotRunningError
from cti_listener.event_base import Event
from cti_listener.feeds import Feeds
from cti_listener.inquiry import Inquiry
from cti_listener.interest import Asked, Interest
from cti_listener.journal import MAX_SIZE, RETENTION, Journal, Synchronous
from cti_listener.keywords import (
    make_source,
    refuse_forgetful,
    refuse_ids,
    refuse_long,
    refuse_short_retention,
    zone_of,
)
from cti_listener.lanes import Unhandled
from cti_listener.notices import Notice
from cti_listener.registration import Retry, as_coroutine_function, make_retry
from cti_listener.router import Handler, Kind, Order, WhenFull, Wish, make_wish
from cti_listener.snapshots import SnapshotHook
from cti_listener.sources.base import Source
from cti_listener.sources.merged import feed_names
from cti_listener.sources.options import Auth, ConnectionKeywords, ConnectionOptions, WireChoice
from cti_listener.stats import Stats
from cti_listener.streams import EventStream, Expectation, Tail
from cti_listener.trackers.calls import TIMEOUT
from cti_listener.tracking import INTERNAL, Agents, Calls, Tracking
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
        redundancy: How many connections bring the same events at once. The first begins at the
            first URL, the second at the second, and so on, round and round. The loss of one is then
            no `Gap`; the first copy of an event to arrive is handled.
        splice_hold: With several connections: for how long at most the events of one that comes
            back wait until another has brought the first of them, in seconds, so that none
            overtakes what came before it. What is late all the same has `event.delivery.late`.
        journal: A file in which every event is kept until the handlers with a `name=` are done
            with it, through any crash; made if there is none. What an earlier run left undone is
            handled first, with `event.delivery.redelivered`. None: events are kept in memory only.
        journal_synchronous: `full`: what is committed outlives a power cut; `normal`: a crash.
        journal_retention: How long what is done stays there, in seconds; no shorter than
            `dedupe_age`.
        journal_max_size: Its size limit, in bytes; reaching it ends the run.
        auth: `Credentials`, or a coroutine function that returns some, asked before every attempt.
        zone: Where the server's clock hangs.
        lane_size: How many happenings wait for one handler and device before the lane is full.
        dedupe_window: How many events at least are remembered to tell repeats by.
        dedupe_age: For how long at least, in seconds. A durable subscription brings again what the
            broker did not hear of in time, so this must be no shorter than `durable_expires`.
        track: Track calls and agents from the start. They are tracked anyhow from when a handler
            for a `Derived` notice (`CallEnded` ...) is registered, or `calls` or `agents` is asked.
        internal: A pattern (`re`) for the whole user part of ids that are ours; other parties are
            outside. Devices whose events came are ours, whatever the pattern says.
        call_timeout: A device in a call that shows no sign for so long is given up, in seconds.
        snapshot: A coroutine function that, given a device as a full id, returns how it stands now
            (`DeviceSnapshot`; None: it cannot tell), for instance a `ClientState`. It is asked when
            the first subscription stands and after every gap, and its device's events wait for it;
            what differs from what was known is told by derived notices with `inferred`. Begins
            the tracking.
        snapshot_timeout: How long one answer may take, in seconds; then the events go on without.
        snapshot_at_once: How many devices are asked about at once.
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
        redundancy: int = 1,
        splice_hold: float = 1.0,
        journal: str | os.PathLike[str] | None = None,
        journal_synchronous: Synchronous = "full",
        journal_retention: float = RETENTION,
        journal_max_size: int = MAX_SIZE,
        auth: Auth | None = None,
        zone: str | tzinfo = "Asia/Shanghai",
        lane_size: int = 1000,
        dedupe_window: int = 100_000,
        dedupe_age: float = 3600.0,
        track: bool = False,
        internal: str = INTERNAL,
        call_timeout: float = TIMEOUT,
        snapshot: SnapshotHook | None = None,
        snapshot_timeout: float = 5.0,
        snapshot_at_once: int = 8,
        block_limit: float = 1.0,
        clock: Clock | None = None,
        **connection: Unpack[ConnectionKeywords],
    ) -> None:
        """Keep what to listen to; nothing is opened before `run()` or `async with`."""
        refuse_ids(devices, agents)
        for name, limit in (
            ("dedupe_window", dedupe_window),
            ("dedupe_age", dedupe_age),
            ("lane_size", lane_size),
            ("redundancy", redundancy),
            ("splice_hold", splice_hold),
            ("snapshot_timeout", snapshot_timeout),
            ("snapshot_at_once", snapshot_at_once),
        ):
            if limit <= 0:
                raise ConfigurationError(name, "must be more than 0")
        refuse_long(
            dedupe_age=dedupe_age, journal_retention=journal_retention, call_timeout=call_timeout
        )
        if journal is not None:
            refuse_short_retention(journal_retention, dedupe_age)
        clock = clock or SystemClock()
        feeds = feed_names(redundancy)
        self._zone = hangs_in = zone_of(zone)
        if isinstance(url, str | Sequence):
            urls = [url] if isinstance(url, str) else list(url)
            options = ConnectionOptions.from_keywords(connection)
            refuse_forgetful(
                options,
                window=dedupe_window if redundancy > 1 or len(urls) > 1 else None,
                dedupe_age=dedupe_age,
                journal=journal is not None,
            )
            url = make_source(
                urls,
                feeds=feeds,
                wire=wire,
                auth=auth,
                options=options,
                zone=hangs_in,
                clock=clock,
            )
        self._interest = Interest(namespace, devices, agents)
        self._journal = None if journal is None else Path(journal)
        self._lane_size = lane_size
        make_tracking = partial(
            Tracking, namespace=namespace, internal=internal, timeout=call_timeout
        )
        make_tracking(wanted=())  # what is wrong with it is said now
        self._engine = Engine(
            url,
            self._interest,
            clock=clock,
            dedupe=Dedupe(dedupe_window, dedupe_age),
            journal=None
            if journal is None
            else Journal(
                journal,
                synchronous=journal_synchronous,
                retention=journal_retention,
                max_size=journal_max_size,
                remember=dedupe_age,
                remember_most=2 * dedupe_window,
                clock=clock,
            ),
            zone=hangs_in,
            feeds=Feeds(feeds) if redundancy > 1 else None,
            hold=splice_hold,
            watchdog=Watchdog(block_limit),
            make_tracking=lambda wanted: make_tracking(wanted=wanted),
            make_inquiry=None
            if snapshot is None
            else partial(Inquiry, snapshot, timeout=snapshot_timeout, at_once=snapshot_at_once),
        )
        if track or snapshot is not None:
            self._engine.track()
        self._handover = self._engine.handover
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        stats = self.stats()
        state = (
            "stopped"
            if self._engine.stopping
            else "connected"
            if stats.connected
            else "not connected"
        )
        where = ", ".join(self._engine.source.endpoints)
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
            name: For logs and counts; the function's name by default. With a journal, a name
                makes it durable: what it has not done when the process ends is done by the next
                one, and what it fails on for good is kept as a dead letter. Its full lanes drop
                nothing and pause nothing, but go on in the journal. It must be the same in every
                run, and registered before the start.
            **attributes: What must equal, as `call_id="..."`.

        Raises:
            HandlerError: It cannot work as asked.
        """
        wish = self._wish(
            kinds,
            device=device,
            agent=agent,
            where=where,
            own_device=own_device,
            **attributes,
        )

        if name is not None and any("\ud800" <= one <= "\udfff" for one in name):
            raise HandlerError("name", f"{name!r} holds half a character, which no file can")
        durable = name is not None and self._engine.durable

        def register(function: F) -> F:
            if durable and self._engine.began:
                raise HandlerError(
                    str(name), "is durable, since it has a name; register it before the start"
                )
            run = as_coroutine_function(function, run_in_thread=run_in_thread)
            self._handover.handlers.add(
                Handler(
                    name=self._name(name, function),
                    wish=wish,
                    run=run,
                    order=order,
                    lane_size=self._lane_size if lane_size is None else lane_size,
                    overflow=overflow,
                    timeout=timeout,
                    retry=make_retry(retry),
                    durable=durable,
                )
            )
            return function

        return register

    def _name(self, name: str | None, function: Callable[..., object]) -> str:
        """Choose a name that no other handler has."""
        taken = {handler.name for handler in self._handover.handlers}
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
        wish = self._wish(kinds, **filters)
        return EventStream(wish, self._handover.taps, size)

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
        wish = self._wish(kinds, **filters)
        return Expectation(wish, self._handover.taps, timeout)

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

        A JSON endpoint that is told by its URL is connected to anew, and so is one that refuses a
        destination (`SubscriptionRefused`): a `Gap` for the others.

        Raises:
            ConfigurationError: A short id without a namespace, or half an id.
        """
        refuse_ids(devices, agents)
        before = self._interest.asked
        self._interest.add(devices, agents)
        await self._follow(before)
        self._engine.added(self._interest.devices - before.devices)

    async def remove(self, *, devices: Sequence[str] = (), agents: Sequence[str] = ()) -> None:
        """Listen to these no longer.

        Raises:
            ConfigurationError: One was not listened to, or nobody would be left.
        """
        refuse_ids(devices, agents)
        before = self._interest.asked
        self._interest.remove(devices, agents)
        try:
            await self._follow(before)
        finally:
            self._interest.free_seats()

    async def _follow(self, before: Asked) -> None:
        """Have the source follow the changed wish; undo it if it cannot be written on the wire."""
        changed = self._interest.asked
        try:
            await self._engine.source.update()
        except ConfigurationError:
            self._interest.undo(before, changed)
            raise

    # Life

    async def run(self) -> None:
        """Listen until `stop()`, or until something fatal.

        Raises:
            RefusedError: The server said no before it ever said yes.
            UnreachableError: `max_attempts` failed in a row.
            JournalError: The journal cannot be used, or written any more.
            ConfigurationError: A destination or an endpoint cannot be used as asked.
            NotRunningError: It runs already, or ran before.
        """
        await self._engine.run()

    async def stop(self, drain: float = 8.0) -> list[Unhandled]:
        """Take no more events, close the connection, let the handlers finish.

        Whoever calls it again waits for the same end, and gets the same answer; who waits no longer
        does not undo it.

        Args:
            drain: How long the handlers may take, in seconds; the longest wait is this and the
                connection's close timeout, side by side.

        Returns:
            What was left unhandled, by lane; empty when all is done. With a journal, what is left
            of a durable handler's is done by the next run.
        """
        return await self._engine.stop(drain)

    async def __aenter__(self) -> Self:
        """Start; return when the first subscription stands.

        Raises:
            CtiError: As `run()`.
        """
        subscribed = self._engine.first_subscribed()
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
        return self._engine.stats()

    def tail(
        self,
        kind: type[Event | Notice],
        take: Callable[[Event | Notice, int], None],
        over: Callable[[], None],
    ) -> Tail:
        """Have every event, or notice of ours, passed on until it is closed or forgotten.

        Args:
            kind: Which of the two.
            take: Called with each, and its place in the journal (0: it has none), where events are
                routed: it must be as quick as an append.
            over: Called when nothing more will come.

        Raises:
            NotRunningError: The listener is stopped.
        """
        self._refuse_if_stopped()
        return Tail(self._wish((kind,)), self._handover.taps, take, over)

    @property
    def journal(self) -> Path | None:
        """The file in which events are kept; None: nowhere."""
        return self._journal

    @property
    def journal_id(self) -> str | None:
        """What tells the journal from one in its place; None: there is none, or it is not open."""
        return self._engine.journal_id

    @property
    def given(self) -> int:
        """The place in the journal up to which all was handed over; 0 without one."""
        return self._engine.given

    @property
    def handed_over(self) -> int:
        """How many events were handed over."""
        return self._handover.events

    @property
    def namespace(self) -> str | None:
        """What completes short ids."""
        return self._interest.namespace

    @property
    def zone(self) -> tzinfo:
        """Where the server's clock hangs."""
        return self._zone

    # Calls and agents

    @property
    def calls(self) -> Calls:
        """The calls in progress by id, a live view; asking begins to track them."""
        return self._engine.track().calls

    @property
    def agents(self) -> Agents:
        """The agents by id, or by device, a live view; asking begins to track them."""
        return self._engine.track().agents

    # Private

    def _wish(self, kinds: Sequence[Kind], **filters: Any) -> Wish:
        """Make a wish; one for what follows from events begins to track calls and agents."""
        wish = make_wish(kinds, namespace=self._interest.namespace, **filters)
        if any(issubclass(kind, Derived) for kind in wish.classes):
            self._engine.track()
        return wish

    def _refuse_if_stopped(self) -> None:
        if self._engine.stopping:
            raise NotRunningError("the listener is stopped")
