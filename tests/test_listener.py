"""Every name of the facade, on a source without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta, timezone
from math import inf, nan
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import tenacity
from structlog.testing import capture_logs

import cti_listener
from cti_listener.errors import (
    ConfigurationError,
    HandlerError,
    NotRunningError,
    RefusedError,
    UnreachableError,
)
from cti_listener.event_base import Event
from cti_listener.events import (
    AgentReady,
    ConnectionCleared,
    Delivered,
    Established,
    Held,
    UnknownEvent,
)
from cti_listener.listener import Listener
from cti_listener.notices import Connected, Disconnected, Gap, Notice, Overflow
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.options import ConnectionKeywords, ConnectionOptions, Credentials
from cti_listener.testing import FakeSource, ManualClock
from tests.examples import NAMESPACE, device_id, make, make_agent
from tests.servers import free_ports
from tests.turns import until

PATIENCE = 10.0


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def listener(source: FakeSource) -> Listener:
    return Listener(source, namespace=NAMESPACE)


def keeping(listener: Listener, *kinds: Any, **options: Any) -> list[Any]:
    """Register a handler that keeps serials, and the names of notices."""
    kept: list[Any] = []

    async def keep(happening: Any) -> None:
        kept.append(happening.serial if isinstance(happening, Event) else happening.event_name)

    listener.on(*kinds, **options)(keep)
    return kept


async def handled(listener: Listener) -> None:
    """Wait until every lane is empty."""
    await until(lambda: not listener.stats().waiting)


# Handlers


async def test_the_readmes_first_lines_work(listener: Listener, source: FakeSource) -> None:
    popped: list[Delivered] = []
    hung_up: list[ConnectionCleared] = []

    @listener.on(Delivered, own_device=True)
    async def screen_pop(event: Delivered) -> None:
        popped.append(event)

    @listener.on(ConnectionCleared, device="8002", where=lambda e: e.own_device)
    async def hang_up(event: ConnectionCleared) -> None:
        hung_up.append(event)

    async with listener:
        async with listener.expect(Established, call_id="c1", timeout=PATIENCE) as expected:
            source.send(make("delivered", 8002, alertingDevice=device_id(8002), serial=1))
            source.send(make("delivered", 8002, alertingDevice=device_id(8003), serial=2))
            source.send(make("connectionCleared", 8002, releasingDevice=device_id(8002), serial=3))
            source.send(make("connectionCleared", 8002, releasingDevice=device_id(8003), serial=4))
            source.send(make("connectionCleared", 8003, releasingDevice=device_id(8003), serial=5))
            source.send(make("established", 8002, callId="c1", serial=6))
        await handled(listener)
    assert [event.serial for event in popped] == [1]
    assert [event.serial for event in hung_up] == [3]
    assert expected.event.serial == 6
    assert listener.stats().handlers.keys() == {screen_pop.__qualname__, hang_up.__qualname__}


async def test_several_handlers_of_one_event_all_run(
    listener: Listener, source: FakeSource
) -> None:
    @listener.on(Held)
    async def fail(_: Held) -> None:
        raise ZeroDivisionError

    kept = [keeping(listener, Held) for _ in range(3)]
    with capture_logs() as logs:
        async with listener:
            source.send(make("held", serial=7))
            await handled(listener)
    assert kept == [[7]] * 3
    failed = [entry for entry in logs if entry["event"] == "handler_failed"]
    assert [entry["key"].serial for entry in failed] == [7]
    assert listener.stats().handlers[fail.__qualname__].failed == 1


async def test_handlers_are_told_apart_by_name(listener: Listener) -> None:
    for _ in range(3):
        keeping(listener, Held)
    keeping(listener, Held, name="mine")
    name = "keeping.<locals>.keep"
    assert list(listener.stats().handlers) == [name, f"{name}#2", f"{name}#3", "mine"]
    with pytest.raises(HandlerError, match="another handler's name"):
        keeping(listener, Held, name="mine")


async def test_handlers_registered_after_the_start_hear_what_comes_after(
    listener: Listener, source: FakeSource
) -> None:
    before = keeping(listener)
    async with listener:
        source.send(make(serial=1))
        after = keeping(listener)
        source.send(make(serial=2))
        await handled(listener)
    assert (before, after) == ([1, 2], [2])


async def test_names_the_catalogue_lacks_can_be_asked_for(
    listener: Listener, source: FakeSource
) -> None:
    named = keeping(listener, "callEnd")
    unknown = keeping(listener, UnknownEvent)
    both = keeping(listener, UnknownEvent, "callEnd", Event)
    async with listener:
        source.send(make("callEnd", serial=1))
        source.send(make("somethingElse", serial=2))
        await handled(listener)
    assert (named, unknown, both) == ([1], [1, 2], [1, 2])


async def test_a_plain_function_is_refused_or_run_in_a_thread(
    listener: Listener, source: FakeSource
) -> None:
    kept: list[int | None] = []

    def plain(event: Event) -> None:
        kept.append(event.serial)

    with pytest.raises(HandlerError, match="run_in_thread=True"):
        listener.on(Held)(plain)
    assert listener.on(Held, run_in_thread=True)(plain) is plain
    async with listener:
        source.send(make("held", serial=7))
    assert kept == [7]


async def test_a_decorator_without_brackets_is_refused(listener: Listener) -> None:
    with pytest.raises(HandlerError, match="needs its brackets"):

        @listener.on  # type: ignore[arg-type]  # that is the mistake
        async def forgotten(event: Event) -> None:
            pass


async def test_a_handler_may_have_a_time_limit_and_retries(
    listener: Listener, source: FakeSource
) -> None:
    tries = 0

    @listener.on(
        Held, timeout=0.01, retry=tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3))
    )
    async def slow(_: Held) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            await asyncio.sleep(3600)

    async with listener:
        source.send(make("held"))
        await handled(listener)
    assert tries == 3
    assert listener.stats().handlers[slow.__qualname__].handled == 1


async def test_a_handler_may_register_and_wait_and_send(
    listener: Listener, source: FakeSource
) -> None:
    later: list[Any] = []

    @listener.on(Held, order="all")
    async def handle(event: Held) -> None:
        later.append(keeping(listener, Delivered))
        async with listener.expect(Delivered, timeout=PATIENCE) as expected:
            source.send(make("delivered", serial=event.serial))
        later.append(expected.event.serial)

    async with listener:
        source.send(make("held", serial=7))
        await handled(listener)
    assert later == [[7], 7]


# Filters


@pytest.mark.parametrize(
    ("whom", "passed"),
    [
        ({}, {"8002", "8003"}),
        ({"devices": ["8002"]}, {"8002"}),
        ({"devices": ["8002@zhen04.cc", " 8003 "]}, {"8002", "8003"}),
        ({"agents": ["5003"]}, {"8003"}),
        ({"devices": ["8002"], "agents": ["5003"]}, {"8002", "8003"}),
        ({"devices": ["8009"]}, set()),
    ],
)
async def test_filters_are_a_union_and_the_rest_is_counted(
    source: FakeSource, whom: dict[str, list[str]], passed: set[str]
) -> None:
    listener = Listener(source, namespace=NAMESPACE, **whom)  # type: ignore[arg-type]
    devices: list[str | None] = []

    @listener.on()
    async def keep(event: Event) -> None:
        devices.append(event.device)

    async with listener:
        for device in (8002, 8003):
            source.send(make_agent("agentLoggedOn", device - 3000, device))
            source.send(make("held", device))
        source.send(
            make(
                "held",
                "8002@elsewhere.cc",
                namespace="elsewhere.cc",
                srcDeviceId="8002@elsewhere.cc",
            )
        )
        await handled(listener)
        stats = listener.stats()
    assert {device.partition("@")[0] for device in devices if device} == passed
    assert all(device and device.endswith("@zhen04.cc") for device in devices)
    assert (stats.received, stats.not_asked_for) == (5, 5 - 2 * len(passed))


async def test_an_event_passes_that_came_by_an_asked_agents_destination(
    source: FakeSource,
) -> None:
    listener = Listener(source, namespace=NAMESPACE, agents=["5002"])
    kept = keeping(listener)
    mine = "/topic/event.agent.*.5002@zhen04_cc"
    listener._interest.destinations(())  # noqa: SLF001 - as a source over STOMP asks
    async with listener:
        source.send(make("held", 8009, serial=1), destination=mine)
        source.send(make("held", 8010, serial=2), destination="/topic/other")
        await handled(listener)
    assert kept == [1]


async def test_who_is_added_is_heard_and_who_is_removed_is_not(source: FakeSource) -> None:
    listener = Listener(source, namespace=NAMESPACE, devices=["8001"])
    kept = keeping(listener, order="all")
    async with listener:
        source.send(make(device=8002, serial=1))
        await listener.add(devices=["8002"], agents=["5003"])
        source.send(make(device=8002, serial=2))
        source.send(make_agent(agent=5003, device=8003, serial=3))
        await listener.remove(devices=["8001", "8002"])
        source.send(make(device=8001, serial=4))
        source.send(make(device=8002, serial=5))
        source.send(make(device=8003, serial=6))
        with pytest.raises(ConfigurationError, match="was not asked for"):
            await listener.remove(devices=["8009"])
        with pytest.raises(ConfigurationError, match="nobody would be left"):
            await listener.remove(agents=["5003"])
        await handled(listener)
    assert kept == [2, 3, 6]


class Unwritable(FakeSource):
    """Follows no wish that is changed."""

    async def update(self) -> None:
        raise ConfigurationError("topics", "name nobody")


async def test_a_removal_that_cannot_be_written_leaves_all_as_it_was() -> None:
    source = Unwritable()
    listener = Listener(source, namespace=NAMESPACE, devices=["8001"], agents=["5003"])
    kept = keeping(listener, order="all")
    async with listener:
        source.send(make_agent(agent=5003, device=8003, serial=1))
        with pytest.raises(ConfigurationError, match="name nobody"):
            await listener.remove(agents=["5003"])
        source.send(make(device=8003, serial=2))
        await handled(listener)
    assert kept == [1, 2]


# Notices


async def test_notices_reach_those_who_ask_and_gaps_come_before_what_follows(
    listener: Listener, source: FakeSource
) -> None:
    here = keeping(listener, Event, Gap, device="8002")
    everything = keeping(listener, Event, Notice, order="all")
    events = keeping(listener)
    gaps = keeping(listener, Gap)
    async with listener:
        source.send(make(device=8002, serial=1))
        source.disconnect()
        source.connect()
        source.send(make(device=8002, serial=2))
        await handled(listener)
    assert here == [1, "gap", 2]
    assert everything == ["connected", 1, "disconnected", "connected", "gap", 2]
    assert (events, gaps) == ([1, 2], ["gap"])


async def test_a_gap_waits_its_turn_in_the_lane_of_the_device(
    listener: Listener, source: FakeSource
) -> None:
    told: list[Any] = []
    go = asyncio.Event()

    @listener.on(Event, Gap, device="8002")
    async def slow(happening: Event | Gap) -> None:
        await go.wait()
        told.append(happening.serial if isinstance(happening, Event) else "gap")

    @listener.on(Event, Gap)
    async def elsewhere(happening: Event | Gap) -> None:
        if isinstance(happening, Gap):
            go.set()  # its own lane for notices: it does not wait for any device's
        else:
            await go.wait()

    async with listener:
        source.send(make(device=8002, serial=1))
        source.disconnect()
        source.connect()
        source.send(make(device=8002, serial=2))
        await handled(listener)
    assert told == [1, "gap", 2]


async def test_the_first_connection_opens_no_gap_and_each_loss_one(
    source: FakeSource,
) -> None:
    clock = ManualClock()
    listener = Listener(source := FakeSource(clock), namespace=NAMESPACE, clock=clock)
    gaps: list[Gap] = []
    lost: list[Disconnected] = []

    @listener.on(Gap)
    async def keep_gap(gap: Gap) -> None:
        gaps.append(gap)

    @listener.on(Disconnected)
    async def keep_lost(notice: Disconnected) -> None:
        lost.append(notice)

    async with listener:
        assert listener.stats().gaps == ()
        source.send(make(serial=1))
        since = clock.now()
        source.disconnect("half_open")
        await clock.advance(5.0)
        (open_gap,) = listener.stats().gaps
        assert open_gap.until is None
        assert not listener.stats().connected
        source.connect()
        source.send(make(serial=2))
        await handled(listener)
        stats = listener.stats()
    (gap,) = gaps
    assert (gap.id, gap.reason, gap.devices) == (1, "half_open", frozenset())
    assert (gap.since, gap.until) == (since, since + timedelta(seconds=5))
    assert gap.last_before is not None
    assert gap.last_before.serial == 1
    assert stats.gaps[0].first_after is not None
    assert stats.gaps[0].first_after.serial == 2
    assert [notice.reason for notice in lost] == ["half_open"]


async def test_an_overflow_is_told_to_those_who_ask(listener: Listener, source: FakeSource) -> None:
    told: list[Overflow] = []
    go = asyncio.Event()

    @listener.on(Event, device="8002", lane_size=2, name="slow")
    async def slow(_: Event) -> None:
        await go.wait()

    @listener.on(Overflow)
    async def keep(notice: Overflow) -> None:
        told.append(notice)

    async with listener:
        for serial in range(6):
            source.send(make(device=8002, serial=serial))
        go.set()
        await handled(listener)
    assert [(one.handler, one.device, one.dropped) for one in told] == [
        ("slow", device_id(8002), 4)
    ]
    assert listener.stats().handlers["slow"].dropped == 4


async def test_a_full_lane_that_blocks_pauses_the_source(
    listener: Listener, source: FakeSource
) -> None:
    go = asyncio.Event()

    @listener.on(overflow="block", lane_size=2)
    async def slow(_: Event) -> None:
        await go.wait()

    async with listener:
        for _ in range(5):
            source.send(make())
        assert source.paused
        go.set()
        await handled(listener)
        assert not source.paused
    assert listener.stats().handlers[slow.__qualname__].handled == 5


# Life


async def test_async_with_returns_when_subscribed(cti_server: SimulatorServer) -> None:
    async with Listener(cti_server.stomp_url, namespace=NAMESPACE, proxy=None) as listener:
        assert listener.stats().connected
        assert [session.subscribed for session in cti_server.sessions] == [True]
    assert not listener.stats().connected


async def test_async_with_raises_what_was_fatal() -> None:
    async with SimulatorServer(token="secret") as server:
        with pytest.raises(RefusedError, match="HTTP 401"):
            async with Listener(server.stomp_url, namespace=NAMESPACE, proxy=None):
                pytest.fail("it must not be entered")
    (port,) = free_ports(1)
    url = f"ws://127.0.0.1:{port}/events"
    with pytest.raises(UnreachableError):
        async with Listener(url, namespace=NAMESPACE, proxy=None, max_attempts=1):
            pytest.fail("it must not be entered")


async def test_async_with_can_be_cancelled_while_it_waits() -> None:
    (port,) = free_ports(1)
    url = f"ws://127.0.0.1:{port}/events"
    tasks = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Listener(url, namespace=NAMESPACE, proxy=None):
            pytest.fail("it must not be entered")
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks


async def test_an_error_in_the_body_is_the_one_that_is_raised(listener: Listener) -> None:
    with pytest.raises(ZeroDivisionError):
        async with listener:
            raise ZeroDivisionError
    assert "stopped" in repr(listener)


async def test_run_ends_with_stop_and_cannot_be_run_again(
    listener: Listener, source: FakeSource
) -> None:
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(listener.run())
        await asyncio.sleep(0)
        with pytest.raises(NotRunningError, match="runs already"):
            await listener.run()
        source.send(make())
        assert await listener.stop() == []
        assert await listener.stop() == []
        await running
    with pytest.raises(NotRunningError):
        await listener.run()


async def test_a_listener_stopped_before_it_runs_does_not_run(
    listener: Listener, source: FakeSource
) -> None:
    assert await listener.stop() == []
    async with asyncio.timeout(PATIENCE):
        await listener.run()
    assert listener.stats().connections == 0


async def test_stop_returns_what_was_left(listener: Listener, source: FakeSource) -> None:
    @listener.on(name="stuck")
    async def stuck(_: Event) -> None:
        await asyncio.sleep(3600)

    async with listener:
        for serial in range(3):
            source.send(make(serial=serial))
        (left,) = await listener.stop(drain=0.01)
        assert (left.handler, left.device) == ("stuck", device_id(8002))
        assert [one.serial for one in left.happenings if isinstance(one, Event)] == [0, 1, 2]
        assert await listener.stop() == [left]


async def test_what_arrives_in_the_moment_of_stopping_is_handled(
    listener: Listener, source: FakeSource
) -> None:
    kept = keeping(listener)
    async with listener:
        source.send(make(serial=1))
        await handled(listener)
        asyncio.get_running_loop().call_soon(source.send, make(serial=2))
        assert await listener.stop() == []
    assert listener.stats().received == 2
    assert kept == [1, 2]


async def test_a_handler_may_stop_the_listener(listener: Listener, source: FakeSource) -> None:
    left: list[Any] = []

    @listener.on(Held)
    async def enough(_: Held) -> None:
        left.append(await listener.stop(drain=PATIENCE))

    kept = keeping(listener)
    async with asyncio.timeout(PATIENCE / 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        await asyncio.sleep(0)
        source.send(make("held", serial=1))
    assert left == [[]]
    assert kept == [1]


async def test_several_handlers_may_stop_the_listener(
    listener: Listener, source: FakeSource
) -> None:
    answers: list[Any] = []

    @listener.on(Held)
    async def enough(_: Held) -> None:
        answers.append(await listener.stop(drain=PATIENCE))

    async with asyncio.timeout(PATIENCE / 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        await asyncio.sleep(0)
        for device in (8001, 8002, 8003):
            source.send(make("held", device))
    await until(lambda: len(answers) == 3)
    assert answers == [[], [], []]
    assert listener.stats().handlers[enough.__qualname__].failed == 0


async def test_a_handler_that_stops_late_does_not_hold_up_the_end(
    listener: Listener, source: FakeSource
) -> None:
    go = asyncio.Event()
    answers: list[Any] = []

    @listener.on(Held)
    async def enough(event: Held) -> None:
        if event.serial:
            await go.wait()
        answers.append(await listener.stop(drain=PATIENCE))

    async with asyncio.timeout(PATIENCE / 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        await asyncio.sleep(0)
        source.send(make("held", 8001, serial=0))
        source.send(make("held", 8002, serial=1))
        for _ in range(5):
            await asyncio.sleep(0)
        go.set()
    await until(lambda: len(answers) == 2)
    assert answers == [[], []]


async def test_a_handler_that_no_longer_waits_for_the_end_is_waited_for(
    listener: Listener, source: FakeSource
) -> None:
    kept: list[int | None] = []
    go = asyncio.Event()

    @listener.on(Held)
    async def impatient(event: Held) -> None:
        if event.serial == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.stop(drain=PATIENCE), 0.01)
            go.set()
        kept.append(event.serial)

    @listener.on(Delivered)
    async def other(_: Delivered) -> None:
        await go.wait()

    async with asyncio.timeout(PATIENCE / 2), listener:
        source.send(make("held", serial=0))
        source.send(make("delivered"))
        source.send(make("held", serial=1))
        await go.wait()
        assert await listener.stop() == []
    assert kept == [0, 1]


async def test_who_waits_no_longer_for_the_stop_does_not_undo_it(
    listener: Listener, source: FakeSource
) -> None:
    @listener.on(name="stuck")
    async def stuck(_: Event) -> None:
        await asyncio.sleep(3600)

    before = asyncio.all_tasks()
    async with asyncio.timeout(PATIENCE), listener:
        source.send(make(serial=7))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.stop(drain=0.1), 0.01)
        (left,) = await listener.stop()
        assert [one.serial for one in left.happenings if isinstance(one, Event)] == [7]
        assert await listener.stop() == [left]
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("overflow", ["drop_oldest", "block"])
async def test_a_handler_cancelled_by_others_does_not_stop_the_reading(
    listener: Listener, source: FakeSource, overflow: Any
) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    @listener.on(overflow=overflow, lane_size=2)
    async def handle(event: Event) -> None:
        if event.serial == 0:
            tasks.append(asyncio.current_task())
            await asyncio.sleep(3600)

    async with asyncio.timeout(PATIENCE / 2), listener:
        source.send(make(serial=0))
        await until(lambda: tasks)
        for serial in range(1, 5):
            source.send(make(serial=serial))
        assert source.paused is (overflow == "block")
        assert tasks[0] is not None
        tasks[0].cancel()
        await handled(listener)
        assert not source.paused
        assert await listener.stop() == []


async def test_what_is_no_exception_but_raised_by_a_handler_ends_nothing(
    listener: Listener, source: FakeSource
) -> None:
    @listener.on(name="fails")
    async def fails(_: Event) -> None:
        pytest.fail("in a handler")

    async with asyncio.timeout(PATIENCE / 2), listener:
        source.send(make())
        source.send(make())
        await handled(listener)
        assert listener.stats().handlers["fails"].failed == 2


async def test_a_cancelled_run_ends_at_once(listener: Listener, source: FakeSource) -> None:
    @listener.on()
    async def stuck(_: Event) -> None:
        await asyncio.sleep(3600)

    task = asyncio.get_running_loop().create_task(listener.run())
    await asyncio.sleep(0)
    source.send(make())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(PATIENCE / 2):
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert task.cancelled()


async def test_a_crash_of_ours_ends_the_run_with_it(listener: Listener, source: FakeSource) -> None:
    async with asyncio.timeout(PATIENCE):
        asyncio.get_running_loop().call_soon(listener._engine.crash, RuntimeError("our bug"))  # noqa: SLF001 - there is no known bug
        with pytest.raises(RuntimeError, match="our bug"):
            await listener.run()


# What cannot work


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"devices": "8002"}, "devices"),
        ({"agents": "5002"}, "agents"),
        ({"devices": ["8002"], "namespace": None}, "device"),
        ({"devices": [""]}, "device"),
        ({"devices": ["8002@"]}, "device"),
        ({"agents": ["@zhen04.cc"]}, "agent"),
        ({"wire": "mqtt"}, "wire"),
        ({"url": []}, "url"),
        ({"url": "zhen04.cc"}, "url"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"lane_size": 0}, "lane_size"),
        ({"dedupe_window": 0}, "dedupe_window"),
        ({"dedupe_age": -1}, "dedupe_age"),
        ({"dedupe_age": inf}, "dedupe_age"),
        ({"journal_retention": 1e14}, "journal_retention"),
        ({"call_timeout": nan}, "call_timeout"),
        ({"block_limit": -1}, "block_limit"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"silence_limit": 3}, "silence_limit"),
        ({"soft_size": 10**9}, "soft_size"),
        ({"key_file": "key.pem"}, "key_file"),
        ({"ping_intervall": 3}, "ping_intervall"),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused_by_name(wrong: dict[str, Any], what: str) -> None:
    arguments: dict[str, Any] = {"url": "ws://cti.test/events", "namespace": NAMESPACE, **wrong}
    with pytest.raises(ConfigurationError) as raised:
        Listener(arguments.pop("url"), **arguments)
    assert raised.value.what == what


@pytest.mark.parametrize("half", ["8002@", "@zhen04.cc", "@"])
async def test_half_an_id_is_refused_wherever_one_is_given(listener: Listener, half: str) -> None:
    with pytest.raises(HandlerError, match=r"device: .* is half an id"):
        keeping(listener, device=half)
    with pytest.raises(HandlerError, match=r"agent: .* is half an id"):
        listener.events(AgentReady, agent=half)
    with pytest.raises(ConfigurationError, match=r"device: .* is half an id"):
        await listener.add(devices=[half])


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_cannot_work_is_refused(listener: Listener, size: int) -> None:
    with pytest.raises(HandlerError) as raised:
        keeping(listener, lane_size=size)
    assert raised.value.what == "lane_size"
    with pytest.raises(HandlerError) as raised:
        listener.events(size=size)
    assert raised.value.what == "size"


def test_a_misspelt_setting_is_told_its_name() -> None:
    with pytest.raises(ConfigurationError, match="did you mean ping_interval"):
        Listener("ws://cti.test/events", ping_intervall=3)  # type: ignore[call-arg]


def test_every_option_has_a_keyword_of_the_same_name_and_type() -> None:
    keywords = ConnectionKeywords.__annotations__
    options = ConnectionOptions.__annotations__
    assert {name: str(kind) for name, kind in options.items()} == {
        name: getattr(kind, "__forward_arg__", str(kind)) for name, kind in keywords.items()
    }


def test_a_journal_that_forgets_before_the_listener_does_is_refused() -> None:
    given: dict[str, Any] = {"namespace": NAMESPACE, "journal": "journal.db"}
    with pytest.raises(
        ConfigurationError,
        match=r"journal_retention: must not be below dedupe_age \(3600 s\), .*; raise it, or lower",
    ):
        Listener(FakeSource(), **given, journal_retention=3599.0)
    Listener(FakeSource(), **given, journal_retention=60.0, dedupe_age=60.0)
    Listener(FakeSource(), namespace=NAMESPACE, journal_retention=60.0)  # of no journal


DURABLE: dict[str, Any] = {
    "durable": "cti-1",
    "durable_expires": 600.0,
    "durable_max_length": 1000,
    "journal": "journal.db",
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"journal": None}, "durable: needs a journal: what was acknowledged would be lost"),
        ({"wire": "json"}, "durable: needs STOMP; leave it out for wire=json"),
        ({"durable": ""}, "durable: '' cannot be an id; give 1 to 100 letters"),
        ({"durable": "a b"}, "durable: 'a b' cannot be an id"),
        ({"durable": "a\nb"}, "cannot be an id"),
        ({"durable": "x" * 101}, "cannot be an id"),
        ({"durable_expires": None}, "durable: needs durable_expires .* and durable_max_length"),
        ({"durable_max_length": None}, "durable: needs durable_expires .* and durable_max_length"),
        ({"durable": None}, "durable_expires: is for a durable subscription; give durable"),
        ({"durable_expires": 0.0}, "durable_expires: must be from 1 to 4294967 seconds"),
        ({"durable_expires": 4_294_968.0}, "durable_expires: must be from 1 to 4294967 seconds"),
        ({"durable_max_length": 0}, "durable_max_length: must be 1 or more"),
        ({"heartbeat_send": 0.0}, "heartbeat_send: must be more than 0 with durable"),
        ({"prefetch": 0}, "prefetch: must be from 1 to 65535"),
        ({"prefetch": 65_536}, "prefetch: must be from 1 to 65535"),
        ({"dedupe_age": 599.0}, r"durable_expires: must not be above dedupe_age \(599 s\)"),
        ({"journal_retention": 599.0}, "journal_retention: must not be below dedupe_age"),
        (
            {"redundancy": 2, "dedupe_window": 999},
            r"durable_max_length: must not be above dedupe_window \(999\)",
        ),
    ],
)
def test_a_durable_subscription_that_cannot_work_is_refused(
    change: dict[str, Any], problem: str
) -> None:
    Listener("ws://cti.test/stomp", namespace=NAMESPACE, **DURABLE)
    with pytest.raises(ConfigurationError, match=problem):
        Listener("ws://cti.test/stomp", namespace=NAMESPACE, **{**DURABLE, **change})


def test_every_public_name_can_be_imported() -> None:
    for name in cti_listener.__all__:
        assert getattr(cti_listener, name) is not None
    assert sorted(cti_listener.__all__) == sorted(dir(cti_listener))
    with pytest.raises(AttributeError, match="no attribute 'Lissener'"):
        _ = cti_listener.Lissener


# What it tells


@pytest.mark.parametrize(
    ("zone", "hours"),
    [({}, 8), ({"zone": ZoneInfo("UTC").key}, 0), ({"zone": timezone(timedelta(hours=2))}, 2)],
)
async def test_the_servers_zone_is_china_unless_told_otherwise(
    cti_server: SimulatorServer, zone: dict[str, Any], hours: int
) -> None:
    listener = Listener(cti_server.json_url, namespace=NAMESPACE, proxy=None, **zone)
    async with listener, listener.expect(Event, timeout=PATIENCE) as expected:
        await cti_server.send(make())
    assert expected.event.event_time is not None
    assert expected.event.event_time.utcoffset() == timedelta(hours=hours)
    assert expected.event.event_time.hour == 14


async def test_a_repr_tells_the_state(listener: Listener, source: FakeSource) -> None:
    who = "<Interest everybody in zhen04.cc>"
    assert repr(listener) == f"<Listener fake: {who} not connected, 0 events, 0 waiting>"
    async with listener:
        source.send(make())
        assert repr(listener) == f"<Listener fake: {who} connected, 1 events, 0 waiting>"
        source.disconnect()
        assert "not connected" in repr(listener)
    assert repr(listener) == f"<Listener fake: {who} stopped, 1 events, 0 waiting>"


def test_a_repr_shows_no_secret() -> None:
    credentials = Credentials(login="me", passcode="s3cret", token="s3cret")
    listener = Listener(
        "wss://me:s3cret@cti.test/events?token=s3cret", namespace=NAMESPACE, auth=credentials
    )
    assert "s3cret" not in f"{listener!r} {credentials!r}"
    assert "wss://cti.test/events" in repr(listener)


async def test_what_is_ours_about_an_event_is_never_dumped_with_it(
    source: FakeSource,
) -> None:
    clock = ManualClock()
    source = FakeSource(clock)
    listener = Listener(source, namespace=NAMESPACE, clock=clock)
    raw = make_agent("agentReady")
    async with listener, listener.expect(AgentReady, timeout=PATIENCE) as expected:
        source.send(raw)
    event = expected.event
    assert event.delivery.received_at == clock.now()
    assert event.as_received() == raw
    assert isinstance(event, AgentReady)
    assert (event.device, event.own_device) == (device_id(8002), True)


async def test_connected_says_how_it_went(cti_server: SimulatorServer) -> None:
    listener = Listener(cti_server.stomp_url, namespace=NAMESPACE, proxy=None)
    told: list[Connected] = []

    @listener.on(Connected)
    async def keep(notice: Connected) -> None:
        told.append(notice)

    async with listener:
        await handled(listener)
    assert [(one.feed, one.url, one.confirmed, one.attempts) for one in told] == [
        ("a", cti_server.stomp_url, True, 1)
    ]


async def test_a_wish_that_cannot_be_written_is_refused_and_undone(
    cti_server: SimulatorServer,
) -> None:
    listener = Listener(
        cti_server.stomp_url,
        namespace=NAMESPACE,
        devices=["8002"],
        agents=["5002"],
        topics=["/topic/{device_}"],
    )
    async with listener:
        with pytest.raises(ConfigurationError, match="topics"):
            await listener.remove(devices=["8002"])
        assert device_id("8002") in repr(listener)
