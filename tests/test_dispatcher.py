"""When a handler runs: lanes, workers, full lanes, failures, and the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import tenacity
from structlog.testing import capture_logs

from cti_listener.dispatcher import ROUND, TOTAL, TURN, Dispatcher
from cti_listener.event_base import Event
from cti_listener.events import parse_event
from cti_listener.lanes import NOTICES, Lane
from cti_listener.notices import Connected, Gap, Notice, Overflow
from cti_listener.registration import as_coroutine_function, make_retry
from cti_listener.router import Handler, make_wish
from cti_listener.workers import SPARE
from tests.examples import make
from tests.turns import until

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
PATIENCE = 10.0
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="untouched")

Run = Callable[[Any], Awaitable[object]]


@dataclass
class Told:
    """What the dispatcher said."""

    notices: list[Notice] = field(default_factory=list)
    pressure: list[bool] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def dispatcher(told: Told) -> Dispatcher:
    return Dispatcher(
        now=lambda: NOW,
        tell=lambda notice, _: told.notices.append(notice),
        pressure=told.pressure.append,
        crashed=told.crashes.append,
    )


def handler_of(run: Run, *kinds: Any, name: str = "handler", **options: Any) -> Handler:
    return Handler(name=name, wish=make_wish(kinds, namespace=None), run=run, **options)


def event(serial: int = 0, device: int | str = 8002) -> Event:
    return parse_event(make(serial=serial, device=device))


def gap() -> Gap:
    return Gap(at=NOW, id=1, since=NOW, until=NOW, reason="disconnected")


async def all_done(dispatcher: Dispatcher) -> None:
    """Wait until nothing waits, and go on."""
    await until(lambda: not dispatcher.waiting)


async def nothing(_: object) -> None:
    pass


class Gate:
    """A handler that keeps what it is given and waits to be let on."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.done: list[Any] = []
        self.open = asyncio.Event()

    async def __call__(self, happening: Any) -> None:
        what = happening.serial if isinstance(happening, Event) else happening.event_name
        self.begun.append(what)
        await self.open.wait()
        self.done.append(what)


# Order


async def test_one_lane_is_handled_in_order_one_at_a_time(dispatcher: Dispatcher) -> None:
    handled: list[int | None] = []
    at_work = 0

    async def handle(one: Event) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await asyncio.sleep(0)
        at_work -= 1
        handled.append(one.serial)

    handler = handler_of(handle)
    dispatcher.start()
    for serial in range(200):
        dispatcher.put(handler, "8002", event(serial))
    assert await dispatcher.drain(PATIENCE) == []
    assert handled == list(range(200))


async def test_lanes_of_other_devices_and_handlers_do_not_wait(dispatcher: Dispatcher) -> None:
    stuck, free = Gate(), Gate()
    free.open.set()
    first, second = handler_of(stuck, name="stuck"), handler_of(free, name="free")
    dispatcher.start()
    for device in ("8001", "8002", "8003"):
        dispatcher.put(first, device, event(int(device)))
    dispatcher.put(second, "8001", event(1))
    await until(lambda: len(stuck.begun) == 3 and free.done)
    assert (stuck.begun, stuck.done, free.done) == ([8001, 8002, 8003], [], [1])
    stuck.open.set()
    assert await dispatcher.drain(PATIENCE) == []


async def test_order_all_is_one_lane_for_everything_in_arrival_order(
    dispatcher: Dispatcher,
) -> None:
    gate = Gate()
    handler = handler_of(gate, order="all")
    dispatcher.start()
    for serial in range(10):
        dispatcher.put(handler, f"{8000 + serial % 3}", event(serial))
    dispatcher.put(handler, NOTICES, gap())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gate.begun == [0]
    gate.open.set()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done == [*range(10), "gap"]


async def test_a_busy_lane_gives_the_others_their_turn(dispatcher: Dispatcher) -> None:
    handled: list[str] = []

    async def handle(one: Event) -> None:
        handled.append(str(one.device)[:4])

    handler = handler_of(handle)
    for serial in range(10 * TURN):
        dispatcher.put(handler, "8001", event(serial, 8001))
    dispatcher.put(handler, "8002", event(0, 8002))
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert handled.index("8002") == TURN


async def test_what_is_put_before_the_start_waits_for_it(dispatcher: Dispatcher) -> None:
    gate = Gate()
    gate.open.set()
    dispatcher.put(handler_of(gate), "8002", event(7))
    await asyncio.sleep(0)
    assert (gate.begun, dispatcher.waiting) == ([], 1)
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done == [7]


# What it costs


async def test_devices_seen_and_idle_leave_no_lane_and_no_task(dispatcher: Dispatcher) -> None:
    handler = handler_of(nothing, lane_size=10_000)
    one = event()
    tasks = len(asyncio.all_tasks())
    dispatcher.start()
    for number in range(100_000):
        dispatcher.put(handler, f"{number}@zhen04.cc", one)
        if number % 1000 == 0:
            await all_done(dispatcher)
    await all_done(dispatcher)
    assert handler.handled == 100_000
    assert repr(dispatcher).startswith("<Dispatcher 0 waiting in 0 lanes, ")
    assert len(asyncio.all_tasks()) <= tasks + 2
    await dispatcher.drain(0)


async def test_handlers_that_never_wait_cost_one_worker(dispatcher: Dispatcher) -> None:
    workers: set[asyncio.Task[Any] | None] = set()

    async def handle(_: Event) -> None:
        workers.add(asyncio.current_task())

    handler = handler_of(handle)
    dispatcher.start()
    for number in range(100):
        dispatcher.put(handler, str(number), event())
    assert await dispatcher.drain(PATIENCE) == []
    # Each wakes the next before it runs a handler, which may wait; two take turns.
    assert len(workers) <= 2


async def test_handlers_that_never_wait_let_the_loop_turn(dispatcher: Dispatcher) -> None:
    workers: set[asyncio.Task[Any] | None] = set()

    async def handle(_: Event) -> None:
        workers.add(asyncio.current_task())

    handler = handler_of(handle)
    for number in range(20 * ROUND):
        dispatcher.put(handler, str(number % 100), event())
    dispatcher.start()
    before, most = dispatcher.waiting, 0
    while dispatcher.waiting:
        await asyncio.sleep(0)
        most = max(most, before - dispatcher.waiting)
        before = dispatcher.waiting
    assert most < 2 * ROUND
    assert len(workers) <= 2


async def test_workers_to_spare_go_when_there_is_nothing_to_do(dispatcher: Dispatcher) -> None:
    gate = Gate()
    handler = handler_of(gate)
    dispatcher.start()
    for number in range(50):
        dispatcher.put(handler, str(number), event())
    await until(lambda: len(gate.begun) == 50)
    assert "50 waiting in 50 lanes" in repr(dispatcher)
    gate.open.set()
    await all_done(dispatcher)
    await asyncio.sleep(0)
    assert repr(dispatcher) == f"<Dispatcher 0 waiting in 0 lanes, {SPARE} workers>"
    await dispatcher.drain(0)


# Full lanes


async def test_a_full_lane_drops_the_oldest_and_says_so_where_they_stood(
    dispatcher: Dispatcher, told: Told
) -> None:
    gate = Gate()
    handler = handler_of(gate, Event, Overflow, lane_size=3)
    dispatcher.start()
    dispatcher.put(handler, "8002", event(0))
    await asyncio.sleep(0)
    assert gate.begun == [0]
    with capture_logs() as logs:
        for serial in range(1, 9):
            dispatcher.put(handler, "8002", event(serial))
    assert [entry["event"] for entry in logs] == ["lane_overflow"]
    gate.open.set()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done == [0, "overflow", 6, 7, 8]
    (notice,) = told.notices
    assert isinstance(notice, Overflow)
    assert (notice.handler, notice.device, notice.dropped) == ("handler", "8002", 5)
    assert notice.first is not None
    assert notice.last is not None
    assert (notice.first.serial, notice.last.serial) == (1, 5)
    assert (handler.dropped, handler.handled) == (5, 5)  # the notice is handled as well


async def test_a_handler_that_did_not_ask_for_overflow_is_not_given_it(
    dispatcher: Dispatcher, told: Told
) -> None:
    gate = Gate()
    gate.open.set()
    handler = handler_of(gate, lane_size=1)
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done == [2]
    assert [type(notice) for notice in told.notices] == [Overflow]
    assert dispatcher.waiting == 0


async def test_what_was_dropped_is_told_behind_the_notices_that_stood_before_it(
    dispatcher: Dispatcher, told: Told
) -> None:
    gate = Gate()
    gate.open.set()
    handler = handler_of(gate, Event, Gap, Overflow, lane_size=4)
    dispatcher.put(handler, "8002", gap())
    dispatcher.put(handler, "8002", gap())
    for serial in (0, 1):
        dispatcher.put(handler, "8002", event(serial))
    dispatcher.put(handler, "8002", gap())
    for serial in (2, 3):
        dispatcher.put(handler, "8002", event(serial))
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done == ["gap", "gap", "overflow", "gap", 3]
    (notice,) = told.notices
    assert isinstance(notice, Overflow)
    assert handler.dropped == notice.dropped == 3


async def test_notices_are_never_dropped(dispatcher: Dispatcher) -> None:
    gate = Gate()
    gate.open.set()
    handler = handler_of(gate, Event, Notice, lane_size=2)
    for serial in range(5):
        dispatcher.put(handler, "8002", gap())
        dispatcher.put(handler, "8002", event(serial))
    for _ in range(5):
        dispatcher.put(handler, "8002", gap())
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert gate.done.count("gap") == 10
    assert handler.dropped == 5


async def test_all_lanes_of_a_handler_together_are_bounded(
    dispatcher: Dispatcher, told: Told
) -> None:
    gate = Gate()
    gate.open.set()
    handler = handler_of(gate, lane_size=2)
    for number in range(300):
        dispatcher.put(handler, str(number), event(number))
    assert dispatcher.waiting == 200
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    assert len(gate.done) + handler.dropped == 300
    assert sum(one.dropped for one in told.notices if isinstance(one, Overflow)) == 100


async def test_a_full_lane_that_blocks_presses_until_it_is_half_empty(
    dispatcher: Dispatcher, told: Told
) -> None:
    left_at_relief: list[int] = []
    release = asyncio.Semaphore(0)

    async def handle(_: Event) -> None:
        await release.acquire()

    handler = handler_of(handle, overflow="block", lane_size=4)
    dispatcher.start()
    for serial in range(5):
        dispatcher.put(handler, "8002", event(serial))
    assert told.pressure == [True]
    dispatcher.put(handler, "8002", event(5))
    assert told.pressure == [True]  # told once
    async with asyncio.timeout(PATIENCE):
        while len(told.pressure) < 2:
            release.release()
            await asyncio.sleep(0)
            left_at_relief.append(dispatcher.waiting)
    assert told.pressure == [True, False]
    for _ in range(10):
        release.release()
    assert await dispatcher.drain(PATIENCE) == []
    assert (handler.handled, handler.dropped) == (6, 0)
    assert 2 in left_at_relief


async def test_pressure_ends_with_the_last_full_lane(dispatcher: Dispatcher, told: Told) -> None:
    slow, quick = Gate(), Gate()
    first = handler_of(slow, overflow="block", lane_size=1, name="slow")
    second = handler_of(quick, overflow="block", lane_size=1, name="quick")
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(first, "8002", event(serial))
        dispatcher.put(second, "8002", event(serial))
    quick.open.set()
    await until(lambda: len(quick.done) == 3)
    assert told.pressure == [True]
    slow.open.set()
    assert await dispatcher.drain(PATIENCE) == []
    assert told.pressure == [True, False]


# Failures


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), TimeoutError()])
async def test_what_a_handler_raises_touches_nothing_else(
    dispatcher: Dispatcher, told: Told, error: BaseException
) -> None:
    handled: list[int | None] = []

    async def handle(one: Event) -> None:
        if one.serial == 1:
            raise error
        handled.append(one.serial)

    handler = handler_of(handle, name="screen_pop")
    dispatcher.start()
    with capture_logs() as logs:
        for serial in range(4):
            dispatcher.put(handler, "8002", event(serial))
        assert await dispatcher.drain(PATIENCE) == []
    assert handled == [0, 2, 3]
    assert (handler.handled, handler.failed, told.crashes) == (3, 1, [])
    (entry,) = logs
    assert (entry["event"], entry["handler"], entry["exc_info"]) == (
        "handler_failed",
        "screen_pop",
        error,
    )
    assert entry["key"] == event(1).key


async def test_a_handler_that_awaits_something_cancelled_fails_alone(
    dispatcher: Dispatcher, told: Told
) -> None:
    async def handle(one: Event) -> None:
        if one.serial == 0:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    handler = handler_of(handle)
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    assert await dispatcher.drain(PATIENCE) == []
    assert (handler.handled, handler.failed, told.crashes) == (2, 1, [])


@pytest.mark.parametrize("overflow", ["drop_oldest", "block"])
@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_cancelled_handler_fails_alone_and_its_lane_goes_on(
    dispatcher: Dispatcher, told: Told, overflow: Any, *, swallowed: bool
) -> None:
    tasks: list[asyncio.Task[Any] | None] = []
    handled: list[int | None] = []

    async def handle(one: Event) -> None:
        if one.serial == 0:
            tasks.append(asyncio.current_task())
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not swallowed:
                    raise
        if one.serial == 1:  # something of its own is cancelled
            raise asyncio.CancelledError
        handled.append(one.serial)

    handler = handler_of(handle, overflow=overflow, lane_size=3)
    dispatcher.start()
    dispatcher.put(handler, "8002", event(0))
    await until(lambda: tasks)
    for serial in range(1, 5):
        dispatcher.put(handler, "8002", event(serial, 8002))
    first = tasks[0]
    assert first is not None
    first.cancel()
    await all_done(dispatcher)
    assert handled[-1] == 4
    assert told.pressure == ([True, False] if overflow == "block" else [])
    assert handler.failed == (not swallowed) + (overflow == "block")
    assert told.crashes == []
    assert await dispatcher.drain(PATIENCE) == []


async def test_a_handler_that_cancels_itself_leaves_the_next_one_alone(
    dispatcher: Dispatcher,
) -> None:
    handled: list[int | None] = []

    async def handle(one: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        if one.serial == 0:
            task.cancel()  # it takes effect where something is next waited for
            return
        await asyncio.sleep(0)
        async with asyncio.TaskGroup():
            handled.append(task.cancelling())

    handler = handler_of(handle)
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    dispatcher.put(handler, "8003", event(3, 8003))
    await all_done(dispatcher)
    assert handled == [0, 0, 0]
    assert (handler.handled, handler.failed) == (4, 0)
    await dispatcher.drain(0)


@pytest.mark.parametrize("woken", [False, True])
async def test_a_worker_cancelled_while_it_has_nothing_to_do_is_replaced(
    dispatcher: Dispatcher, *, woken: bool
) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def handle(_: Event) -> None:
        tasks.append(asyncio.current_task())

    handler = handler_of(handle)
    dispatcher.start()
    dispatcher.put(handler, "8002", event(0))
    await all_done(dispatcher)
    await asyncio.sleep(0)
    if woken:
        dispatcher.put(handler, "8002", event(1))
    assert tasks[0] is not None
    tasks[0].cancel()
    await asyncio.sleep(0)
    dispatcher.put(handler, "8003", event(2))
    assert await dispatcher.drain(1.0) == []
    assert handler.handled == 2 + woken


class Outcome(BaseException):
    """Not an `Exception`, as what `pytest.fail` raises."""


@pytest.mark.parametrize("error", [Outcome(), GeneratorExit()])
async def test_whatever_a_handler_raises_is_its_own_failure(
    dispatcher: Dispatcher, told: Told, error: BaseException
) -> None:
    handled: list[int | None] = []

    async def handle(one: Event) -> None:
        if one.serial == 0:
            raise error
        handled.append(one.serial)

    handler = handler_of(handle)
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    assert await dispatcher.drain(1.0) == []
    assert (handled, handler.failed, told.crashes) == ([1, 2], 1, [])


def test_what_ends_the_program_ends_it_and_the_lane_is_not_lost() -> None:
    crashes: list[BaseException] = []

    async def handle(one: Event) -> None:
        if one.serial == 0:
            raise KeyboardInterrupt

    handler = handler_of(handle)
    loop = asyncio.new_event_loop()
    dispatcher = Dispatcher(
        now=lambda: NOW, tell=lambda *_: None, pressure=lambda _: None, crashed=crashes.append
    )

    async def begin() -> None:
        dispatcher.start()
        for serial in range(3):
            dispatcher.put(handler, "8002", event(serial))
        await asyncio.sleep(PATIENCE)

    beginning = loop.create_task(begin())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(beginning)
        assert loop.run_until_complete(dispatcher.drain(1.0)) == []
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(beginning)
    finally:
        loop.close()
    assert [type(error) for error in crashes] == [KeyboardInterrupt]
    assert (handler.handled, dispatcher.waiting) == (2, 0)


def test_a_handler_thrown_away_with_its_loop_ends_quietly() -> None:
    async def begin() -> Dispatcher:
        dispatcher = Dispatcher(
            now=lambda: NOW, tell=lambda *_: None, pressure=lambda _: None, crashed=lambda _: None
        )
        dispatcher.start()
        dispatcher.put(handler, "8002", event())
        await until(lambda: gate.begun)
        return dispatcher

    gate = Gate()
    handler = handler_of(gate)
    loop = asyncio.new_event_loop()
    dispatcher = loop.run_until_complete(begin())
    (worker,) = dispatcher._crew._workers  # noqa: SLF001 - what the garbage collector would do to it
    running = worker.get_coro()
    loop.close()
    running.close()
    assert (handler.failed, handler.handled) == (0, 0)
    worker._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - that is the case


async def test_a_time_limit_ends_one_run(dispatcher: Dispatcher) -> None:
    async def handle(one: Event) -> None:
        if one.serial == 0:
            await asyncio.sleep(3600)

    handler = handler_of(handle, timeout=0.01)
    dispatcher.start()
    with capture_logs() as logs:
        for serial in range(2):
            dispatcher.put(handler, "8002", event(serial))
        assert await dispatcher.drain(PATIENCE) == []
    assert (handler.handled, handler.failed) == (1, 1)
    assert isinstance(logs[0]["exc_info"], TimeoutError)


@pytest.mark.parametrize(
    ("retry", "failures", "outcome"),
    [
        (2, 2, (1, 0)),
        (2, 3, (0, 1)),
        (tenacity.stop_after_attempt(4), 3, (1, 0)),
        (tenacity.stop_after_attempt(4), 4, (0, 1)),
        (tenacity.wait_fixed(0), 20, (1, 0)),
        (tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3)), 2, (1, 0)),
        (tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3)), 3, (0, 1)),
        (None, 1, (0, 1)),
    ],
)
async def test_what_fails_is_tried_again_as_often_as_asked_for(
    dispatcher: Dispatcher, retry: Any, failures: int, outcome: tuple[int, int]
) -> None:
    tries = 0

    async def handle(_: Event) -> None:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise OSError

    strategy = make_retry(retry)
    if strategy is not None and not isinstance(retry, tenacity.AsyncRetrying):
        strategy = strategy.copy(wait=tenacity.wait_none())
    handler = handler_of(handle, retry=strategy)
    dispatcher.start()
    dispatcher.put(handler, "8002", event())
    assert await dispatcher.drain(PATIENCE) == []
    assert (handler.handled, handler.failed) == outcome
    assert tries == failures + outcome[0]


async def test_a_time_limit_holds_for_each_try(dispatcher: Dispatcher) -> None:
    tries = 0

    async def handle(_: Event) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            await asyncio.sleep(3600)

    retry = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3))
    handler = handler_of(handle, timeout=0.01, retry=retry)
    dispatcher.start()
    dispatcher.put(handler, "8002", event())
    assert await dispatcher.drain(PATIENCE) == []
    assert (tries, handler.handled) == (3, 1)


async def test_a_bug_of_the_dispatchers_is_told(dispatcher: Dispatcher, told: Told) -> None:
    error = RuntimeError("a bug")

    class Broken(list[Any]):
        def __contains__(self, _: object) -> bool:
            raise error

    handler = handler_of(nothing, Event)
    dispatcher.start()
    dispatcher._full = Broken([1])  # type: ignore[assignment]  # noqa: SLF001 - there is no known bug
    dispatcher.put(handler, "8002", event())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told.crashes == [error]
    await dispatcher.drain(0)


# Context


async def test_context_variables_do_not_leak_to_the_next_happening(
    dispatcher: Dispatcher,
) -> None:
    seen: list[str] = []

    async def handle(one: Event) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(f"set at {one.serial}")
        if one.serial == 2:
            await asyncio.sleep(0)

    handler = handler_of(handle)
    dispatcher.start()
    for device in ("8001", "8002"):
        for serial in range(4):
            dispatcher.put(handler, device, event(serial))
    assert await dispatcher.drain(PATIENCE) == []
    assert seen == ["untouched"] * 8


async def test_a_handler_that_puts_leaks_no_context_to_whom_it_puts(
    dispatcher: Dispatcher,
) -> None:
    seen: list[str] = []

    async def look(_: Event) -> None:
        seen.append(VARIABLE.get())

    async def handle(_: Event) -> None:
        VARIABLE.set("set by the first")
        dispatcher.put(second, "8002", event())
        await asyncio.sleep(0)

    first, second = handler_of(handle), handler_of(look)
    dispatcher.start()
    dispatcher.put(first, "8002", event())
    assert await dispatcher.drain(PATIENCE) == []
    assert seen == ["untouched"]


async def test_handlers_see_the_context_of_the_start(dispatcher: Dispatcher) -> None:
    seen: list[str] = []

    async def look(_: Event) -> None:
        seen.append(VARIABLE.get())

    token = VARIABLE.set("of the start")
    dispatcher.start()
    VARIABLE.reset(token)
    dispatcher.put(handler_of(look), "8002", event())
    assert await dispatcher.drain(PATIENCE) == []
    assert seen == ["of the start"]


# The end


async def test_drain_gives_up_in_time_and_returns_what_was_left(dispatcher: Dispatcher) -> None:
    gate = Gate()
    handler = handler_of(gate, Event, Connected, name="stuck")
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    dispatcher.put(handler, NOTICES, Connected(at=NOW, feed="a", url="", confirmed=True))
    left = await dispatcher.drain(0.05)
    assert [(one.handler, one.device) for one in left] == [("stuck", "8002"), ("stuck", None)]
    assert [one.serial for one in left[0].happenings if isinstance(one, Event)] == [0, 1, 2]
    assert [one.event_name for one in left[1].happenings] == ["connected"]
    assert gate.done == []
    assert repr(dispatcher).endswith("in 0 lanes, 0 workers>")


async def test_a_handler_that_swallows_cancellation_does_not_hang_the_end(
    dispatcher: Dispatcher, told: Told
) -> None:
    go = asyncio.Event()
    begun: list[int | None] = []

    async def stubborn(one: Event) -> None:
        begun.append(one.serial)
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    handler = handler_of(stubborn)
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    async with asyncio.timeout(PATIENCE):
        (left,) = await dispatcher.drain(0.01)
    assert len(left.happenings) == 3
    go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    # What was handed back as left is not handled after all.
    assert (begun, told.crashes) == ([0], [])
    assert repr(dispatcher).endswith(" 0 workers>")


async def test_a_handler_may_drain_from_within(dispatcher: Dispatcher, told: Told) -> None:
    handled: list[int | None] = []
    ended = asyncio.Event()

    async def handle(one: Event) -> None:
        if one.serial == 0:
            assert await dispatcher.drain(PATIENCE / 2) == []
            ended.set()
        handled.append(one.serial)

    handler = handler_of(handle)
    dispatcher.start()
    dispatcher.put(handler, "8001", event(0))
    dispatcher.put(handler, "8002", event(1))
    dispatcher.put(handler, "8003", event(2))
    await asyncio.wait_for(ended.wait(), 1.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (sorted(handled, key=str), told.crashes) == ([0, 1, 2], [])


async def test_a_handler_that_drained_from_within_runs_nothing_that_comes_later(
    dispatcher: Dispatcher,
) -> None:
    handled: list[int | None] = []
    drained, go_on = asyncio.Event(), asyncio.Event()

    async def handle(one: Event) -> None:
        handled.append(one.serial)
        await dispatcher.drain(0.0)
        drained.set()
        await go_on.wait()

    handler = handler_of(handle)
    dispatcher.start()
    dispatcher.put(handler, "8001", event(0))
    await drained.wait()
    dispatcher.put(handler, "8001", event(1))  # as a journal does with what was under way
    dispatcher.put(handler, "8002", event(2))
    go_on.set()
    await until(lambda: repr(dispatcher).endswith(" 0 workers>"))
    assert handled == [0]


async def test_a_drain_that_is_cancelled_gives_up(dispatcher: Dispatcher) -> None:
    gate = Gate()
    handler = handler_of(gate)
    dispatcher.start()
    dispatcher.put(handler, "8002", event())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dispatcher.drain(PATIENCE), 0.01)
    await until(lambda: repr(dispatcher).endswith("in 0 lanes, 0 workers>"))
    assert gate.done == []


async def test_nothing_is_run_after_the_end(dispatcher: Dispatcher) -> None:
    gate = Gate()
    dispatcher.start()
    assert await dispatcher.drain(PATIENCE) == []
    dispatcher.put(handler_of(gate), "8002", event())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gate.begun == []


async def test_a_plain_function_runs_in_a_thread(dispatcher: Dispatcher) -> None:
    threads: list[str] = []

    def blocking(_: Event) -> None:
        threads.append(threading.current_thread().name)

    handler = handler_of(as_coroutine_function(blocking, run_in_thread=True))
    dispatcher.start()
    dispatcher.put(handler, "8002", event())
    assert await dispatcher.drain(PATIENCE) == []
    assert handler.handled == 1
    assert threads != [threading.current_thread().name]


async def test_counts_are_of_now_and_since_the_start(dispatcher: Dispatcher) -> None:
    gate = Gate()
    handler = handler_of(gate)
    dispatcher.start()
    for serial in range(3):
        dispatcher.put(handler, "8002", event(serial))
    await asyncio.sleep(0)
    assert (handler.waiting, handler.handled, dispatcher.waiting) == (3, 0, 3)
    assert repr(handler) == "<Handler handler for any event, 0 handled, 3 waiting>"
    gate.open.set()
    assert await dispatcher.drain(PATIENCE) == []
    assert (handler.waiting, handler.handled, dispatcher.waiting) == (0, 3, 0)


# What is left in the journal


class Books:
    """Keeps what durable handlers did, and what their lanes ask for."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.buried: list[tuple[int, str]] = []
        self.asking: list[Lane] = []

    def done(self, lane: Lane, seq: int) -> None:
        assert lane.handler.durable
        self.finished.append(seq)

    def dead(self, lane: Lane, seq: int, error: BaseException) -> None:
        assert lane.handler.durable
        self.buried.append((seq, str(error)))

    def refill(self, lane: Lane) -> None:
        self.asking.append(lane)

    def answer(self, dispatcher: Dispatcher) -> None:
        """Bring the first lane that asked what it left, as the journal does."""
        lane = self.asking.pop(0)
        assert lane.spill is not None
        seqs = list(lane.spill.left[: dispatcher.room(lane.handler)])
        dispatcher.refilled(lane, [(seq, event(seq)) for seq in seqs], len(seqs))


@pytest.fixture
def books(dispatcher: Dispatcher) -> Books:
    dispatcher.keeper = books = Books()
    return books


async def all_answered(dispatcher: Dispatcher, books: Books) -> None:
    async with asyncio.timeout(PATIENCE):
        while dispatcher.waiting or books.asking:
            if books.asking:
                books.answer(dispatcher)
            await asyncio.sleep(0)


async def test_what_a_handler_makes_of_being_interrupted_is_no_failure(
    dispatcher: Dispatcher, books: Books, told: Told
) -> None:
    """As a database's driver does. It is left, and a later run has it again."""
    begun = asyncio.Event()

    async def interrupted(_: Event) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            raise ConnectionError("interrupted") from error

    handler = handler_of(interrupted, durable=True)
    dispatcher.start()
    dispatcher.put(handler, "8002", event(1), 1)
    await begun.wait()
    (left,) = await dispatcher.drain(0.0)
    assert [one.serial for one in left.happenings if isinstance(one, Event)] == [1]
    await until(lambda: repr(dispatcher).endswith(" 0 workers>"))
    assert (books.buried, handler.failed, told.crashes) == ([], 0, [])


async def test_each_event_a_durable_handler_is_done_with_is_told(
    dispatcher: Dispatcher, books: Books
) -> None:
    async def handle(one: Event) -> None:
        assert isinstance(one, Event | Gap)
        if getattr(one, "serial", None) == 2:
            raise ValueError("two")

    handler = handler_of(handle, Event, Gap, durable=True)
    dispatcher.start()
    for seq in (1, 2, 3):
        dispatcher.put(handler, "8002", event(seq), seq)
    dispatcher.put(handler, "8002", gap())  # is in no journal
    await all_done(dispatcher)
    assert (books.finished, books.buried) == ([1, 3], [(2, "two")])


async def test_a_full_durable_lane_goes_on_in_the_journal_in_order(
    dispatcher: Dispatcher, books: Books, told: Told
) -> None:
    gate = Gate()
    handler = handler_of(gate, Event, Gap, lane_size=3, durable=True, overflow="block")
    dispatcher.start()
    for seq in range(1, 21):
        dispatcher.put(handler, "8002", event(seq), seq)
        await asyncio.sleep(0)
    dispatcher.put(handler, "8002", gap())
    assert (handler.waiting, books.asking) == (4, [])  # one is running
    gate.open.set()
    await all_answered(dispatcher, books)
    assert gate.done == [*range(1, 21), "gap"]
    assert books.finished == list(range(1, 21))
    assert (handler.dropped, told.pressure, told.notices) == (0, [], [])
    assert repr(dispatcher).startswith("<Dispatcher 0 waiting in 0 lanes")


async def test_a_lane_asks_once_and_waits_for_the_answer(
    dispatcher: Dispatcher, books: Books
) -> None:
    handler = handler_of(nothing, lane_size=2, durable=True)
    dispatcher.start()
    for seq in range(1, 9):
        dispatcher.put(handler, "8002", event(seq), seq)
    await all_done(dispatcher)
    assert len(books.asking) == 1
    dispatcher.put(handler, "8002", event(9), 9)  # waits behind what is left
    await asyncio.sleep(0)
    assert dispatcher.waiting == 0
    await all_answered(dispatcher, books)
    assert books.finished == list(range(1, 10))


async def test_a_lane_goes_on_with_what_an_earlier_run_left_before_anything_new(
    dispatcher: Dispatcher, books: Books
) -> None:
    handler = handler_of(nothing, lane_size=2, durable=True)
    dispatcher.resume(handler, "8002", [3, 5, 8])
    dispatcher.put(handler, "8002", event(9), 9)
    dispatcher.put(handler, "8003", event(10), 10)
    dispatcher.start()
    await all_done(dispatcher)
    assert books.finished == [10]  # other devices do not wait
    await all_answered(dispatcher, books)
    assert books.finished == [10, 3, 5, 8, 9]


async def test_an_answer_that_finds_nothing_ends_the_waiting(
    dispatcher: Dispatcher, books: Books
) -> None:
    """Somebody erased the events meanwhile."""
    handler = handler_of(nothing, durable=True)
    dispatcher.start()
    dispatcher.resume(handler, "8002", [3, 5])
    await until(lambda: books.asking)
    dispatcher.refilled(books.asking.pop(), [], 2)
    assert repr(dispatcher).startswith("<Dispatcher 0 waiting in 0 lanes")
    assert await dispatcher.drain(PATIENCE) == []


async def test_draining_waits_for_what_is_in_the_journal(
    dispatcher: Dispatcher, books: Books
) -> None:
    handler = handler_of(nothing, lane_size=1, durable=True)
    dispatcher.start()
    for seq in range(1, 7):
        dispatcher.put(handler, "8002", event(seq), seq)
    draining = asyncio.get_running_loop().create_task(dispatcher.drain(PATIENCE))
    await until(lambda: books.asking and not dispatcher.waiting)
    assert not draining.done()
    await all_answered(dispatcher, books)
    assert await draining == []
    assert books.finished == list(range(1, 7))


async def test_what_a_lane_left_in_the_journal_stays_there_at_the_end(
    dispatcher: Dispatcher, books: Books
) -> None:
    gate = Gate()
    handler = handler_of(gate, lane_size=2, durable=True)
    dispatcher.start()
    for seq in range(1, 9):
        dispatcher.put(handler, "8002", event(seq), seq)
        await asyncio.sleep(0)
    (left,) = await dispatcher.drain(0.0)
    assert [one.serial for one in left.happenings if isinstance(one, Event)] == [1, 2, 3]
    assert books.finished == []
    lane = Lane(handler, "8002")
    dispatcher.refilled(lane, [(4, event(4))], 1)  # an answer that comes too late
    assert not lane.queue


async def test_lanes_are_refilled_by_less_when_their_handler_has_much(
    dispatcher: Dispatcher, books: Books
) -> None:
    gate = Gate()
    handler = handler_of(gate, lane_size=2, durable=True)
    assert dispatcher.room(handler) == 2
    for seq in range(1, 2 * TOTAL):
        dispatcher.put(handler, f"d{seq}", event(seq), seq)
    assert dispatcher.room(handler) == 1
    dispatcher.put(handler, "one", event(), 1000)
    assert dispatcher.room(handler) == 1  # never none, or a lane would wait for ever
