"""`events()`, `expect()` and `wait_for()`: they never slow the reader, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from cti_listener.errors import NotRunningError, RefusedError, WaitTimeoutError
from cti_listener.event_base import Event
from cti_listener.events import Delivered, Established, Held
from cti_listener.listener import Listener
from cti_listener.notices import Gap
from cti_listener.simulator import SimulatorServer
from cti_listener.testing import FakeSource
from tests.examples import NAMESPACE, make
from tests.turns import until

PATIENCE = 10.0


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest_asyncio.fixture
async def listener(source: FakeSource) -> AsyncIterator[Listener]:
    async with Listener(source, namespace=NAMESPACE) as running:
        yield running


def taps(listener: Listener) -> int:
    """Count who is still fed."""
    return len(list(listener._handover.taps))  # noqa: SLF001 - is anything kept?


# Streams


async def test_a_stream_gives_what_was_asked_for_in_order_and_ends_with_the_listener(
    listener: Listener, source: FakeSource
) -> None:
    stream = listener.events(Delivered, device="8002")
    sent = [make("delivered", 8002) for _ in range(3)]
    for event in sent:
        source.send(event)
        source.send(make("delivered", 8003))
        source.send(make("held", 8002))
    await listener.stop()
    assert [event.serial async for event in stream] == [event["serial"] for event in sent]
    assert taps(listener) == 1  # `stream` is still at hand


async def test_a_stream_waits_for_what_comes(listener: Listener, source: FakeSource) -> None:
    stream = listener.events("held")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(anext(stream))
        await asyncio.sleep(0)
        assert not first.done()
        source.send(make("held", serial=7))
    assert first.result().serial == 7


async def test_readers_of_one_stream_share_it_and_all_end_with_the_listener(
    listener: Listener, source: FakeSource
) -> None:
    stream = listener.events()
    read: list[tuple[int, int | None]] = []

    async def reader(number: int) -> None:
        async for event in stream:
            read.append((number, event.serial))
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(reader(number))
        await asyncio.sleep(0)
        source.send(make(serial=0))  # one event wakes all, and all but one wait on
        await until(lambda: len(read) == 1)
        for _ in range(3):
            await asyncio.sleep(0)
        for serial in range(1, 7):
            source.send(make(serial=serial))
        await until(lambda: len(read) == 7)
        assert {number for number, _ in read} == {0, 1, 2}
        await listener.stop()
    assert sorted(serial for _, serial in read if serial is not None) == list(range(7))


async def test_an_abandoned_stream_is_gone(listener: Listener, source: FakeSource) -> None:
    stream = listener.events()
    kept = listener.events()
    assert taps(listener) == 2
    source.send(make())
    del stream
    gc.collect()
    assert taps(listener) == 1
    source.send(make())
    assert repr(kept) == "<EventStream of any event, 2 waiting, 0 dropped>"


async def test_a_stream_left_in_the_middle_of_its_loop_is_gone(
    listener: Listener, source: FakeSource
) -> None:
    source_of_events = listener.events()
    source.send(make())
    async for _ in source_of_events:
        break
    del source_of_events
    gc.collect()
    assert taps(listener) == 0


async def test_a_slow_reader_loses_the_oldest_and_is_told(
    listener: Listener, source: FakeSource
) -> None:
    stream = listener.events(size=10)
    with capture_logs() as logs:
        for serial in range(100):
            source.send(make(serial=serial))
    assert stream.dropped == 90
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "stream_overflow"
    ]
    await listener.stop()
    assert [event.serial async for event in stream] == list(range(90, 100))
    assert listener.stats().received == 100


async def test_a_closed_stream_takes_no_more_and_gives_what_it_has(
    listener: Listener, source: FakeSource
) -> None:
    async with listener.events() as stream:
        source.send(make(serial=1))
    source.send(make(serial=2))
    assert taps(listener) == 0
    assert [event.serial async for event in stream] == [1]


async def test_a_stream_gives_notices_when_asked(listener: Listener, source: FakeSource) -> None:
    stream = listener.events(Gap)
    source.disconnect()
    source.connect()
    async with asyncio.timeout(PATIENCE):
        gap = await anext(stream)
    assert gap.reason == "disconnected"


async def test_a_stream_ends_with_the_error_that_ended_the_listener() -> None:
    async with SimulatorServer(credentials=("me", "right")) as server:
        listener = Listener(server.stomp_url, namespace=NAMESPACE, proxy=None)
        stream = listener.events()
        expected = listener.expect(Delivered)
        with pytest.raises(RefusedError):
            await listener.run()
    with pytest.raises(RefusedError):
        await anext(stream)
    with pytest.raises(RefusedError):
        await expected.seen()


async def test_a_stream_of_a_listener_stopped_before_it_ran_ends(source: FakeSource) -> None:
    listener = Listener(source, namespace=NAMESPACE)
    stream = listener.events()
    await listener.stop()
    async with asyncio.timeout(PATIENCE):
        assert [event async for event in stream] == []


# Expectations


async def test_expect_registers_before_what_it_waits_for(
    listener: Listener, source: FakeSource
) -> None:
    async with listener.expect(Established, call_id="c1", timeout=PATIENCE) as expected:
        source.send(make("established", callId="c2"))
        source.send(make("established", callId="c1", serial=7))
        source.send(make("established", callId="c1", serial=8))
    assert expected.event.serial == 7
    assert taps(listener) == 0


async def test_wait_for_returns_the_next_such_event(listener: Listener, source: FakeSource) -> None:
    source.send(make("held", serial=1))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(listener.wait_for(Held, timeout=PATIENCE))
        await asyncio.sleep(0)
        source.send(make("delivered", serial=2))
        source.send(make("held", serial=3))
    assert waiting.result().serial == 3
    assert taps(listener) == 0


async def test_what_does_not_come_in_time_is_named(listener: Listener) -> None:
    with pytest.raises(WaitTimeoutError) as raised:
        await listener.wait_for(Established, call_id="c1", device="8002", timeout=0.01)
    assert str(raised.value) == "no Established call_id=c1 of 8002 within 0.01 s"
    assert isinstance(raised.value, TimeoutError)
    assert taps(listener) == 0


async def test_a_block_that_fails_is_not_waited_for(listener: Listener) -> None:
    with pytest.raises(ZeroDivisionError):
        async with listener.expect(Established):
            raise ZeroDivisionError
    assert taps(listener) == 0


async def test_a_cancelled_wait_leaves_nothing_behind(listener: Listener) -> None:
    task = asyncio.get_running_loop().create_task(listener.wait_for(Held))
    await asyncio.sleep(0)
    assert taps(listener) == 1
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert taps(listener) == 0


async def test_an_abandoned_expectation_is_gone(listener: Listener, source: FakeSource) -> None:
    expected = listener.expect(Held)
    assert taps(listener) == 1
    del expected
    gc.collect()
    assert taps(listener) == 0
    source.send(make("held"))
    assert listener.stats().unrouted == 1


async def test_an_event_not_yet_seen_is_an_error_and_not_none(
    listener: Listener, source: FakeSource
) -> None:
    expected = listener.expect(Held)
    with pytest.raises(NotRunningError, match="no Held yet"):
        _ = expected.event
    assert repr(expected) == "<Expectation of Held, not yet seen>"
    source.send(make("held"))
    assert repr(expected) == "<Expectation of Held, seen>"


async def test_waiting_ends_when_the_listener_stops(listener: Listener) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(failure(listener))
        await asyncio.sleep(0)
        await listener.stop()
    assert isinstance(waiting.result(), NotRunningError)
    with pytest.raises(NotRunningError, match="stopped"):
        await listener.wait_for(Held)
    with pytest.raises(NotRunningError, match="stopped"):
        listener.events()


async def failure(listener: Listener) -> BaseException | None:
    """Return what waiting ends with."""
    try:
        await listener.wait_for(Held, timeout=PATIENCE)
    except NotRunningError as error:
        return error
    return None


async def test_many_who_wait_for_the_same_all_get_it(
    listener: Listener, source: FakeSource
) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(listener.wait_for(Event)) for _ in range(10)]
        await asyncio.sleep(0)
        source.send(make(serial=7))
    assert [task.result().serial for task in waiting] == [7] * 10
    assert taps(listener) == 0
