"""The whole way, from a server's socket to a user's handler."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median
from typing import Any

import pytest
from blockbuster import BlockBuster
from structlog.testing import capture_logs

from cti_listener.errors import WaitTimeoutError
from cti_listener.event_base import Event
from cti_listener.events import Delivered
from cti_listener.listener import Listener
from cti_listener.notices import Disconnected, Gap, Overflow
from cti_listener.simulator import Centre, Faults, Ledger, SimulatorServer
from tests.elsewhere import simulator_elsewhere
from tests.examples import EXAMPLES, NAMESPACE, device_id, make, make_agent

PATIENCE = 20.0
RELAYED = ("params", "_type", "topics")

DEVICES = {
    "agentAllocated": ("AgentAllocated", "8001@final.cc"),
    "agentLoggedOff": ("AgentLoggedOff", "8002@zhen04.cc"),
    "agentLoggedOn": ("AgentLoggedOn", "8002@zhen04.cc"),
    "agentNotReady": ("AgentNotReady", "8001@zhen04.cc"),
    "agentReady": ("AgentReady", "8002@zhen04.cc"),
    "agentWorkingAfterCall": ("AgentWorkingAfterCall", "8005@zhen04.cc"),
    "conferenced": ("Conferenced", "8001@zhen04.cc"),
    "connectionCleared": ("ConnectionCleared", "8002@zhen04.cc"),
    "delivered-1": ("Delivered", "8100@welljoint.cc"),
    "delivered-2": ("Delivered", "8003@test0016.cc"),
    "established": ("Established", "8002@zhen04.cc"),
    "held": ("Held", "8002@zhen04.cc"),
    "originated": ("Originated", "8001@zhen04.cc"),
    "recordStarted": ("RecordStarted", "8009@bzkun.cc"),
    "recordStopped": ("RecordStopped", "8009@bzkun.cc"),
    "retrieved": ("Retrieved", "8002@zhen04.cc"),
    "serviceInitiated": ("ServiceInitiated", "8001@zhen04.cc"),
    "transferred": ("Transferred", "8002@zhen04.cc"),
}
"""The class of each example and the device it must reach."""


class Heard:
    """Keeps what handlers are given, by device, and tells when there is enough."""

    def __init__(self, listener: Listener, *kinds: Any, **options: Any) -> None:
        self.by_device: defaultdict[str | None, list[Event]] = defaultdict(list)
        self.count = 0
        self._changed = asyncio.Event()

        @listener.on(*kinds, **options)
        async def keep(event: Event) -> None:
            self.by_device[event.device].append(event)
            self.count += 1
            self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.count < count:
                self._changed.clear()
                await self._changed.wait()

    def serials(self, device: int) -> list[int | None]:
        return [event.serial for event in self.by_device[device_id(device)]]


def url_of(server: SimulatorServer, wire: str) -> str:
    return server.stomp_url if wire == "stomp" else server.json_url


def without_relay(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a STOMP broker adds on the way."""
    return {key: value for key, value in event.items() if key not in RELAYED}


def test_there_is_an_expectation_for_each_of_the_18_examples() -> None:
    assert len(EXAMPLES) == 18
    assert EXAMPLES.keys() == DEVICES.keys()


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_the_18_examples_reach_the_handler_of_their_device(
    cti_server: SimulatorServer, wire: str
) -> None:
    listener = Listener(url_of(cti_server, wire), proxy=None)
    heard = {
        device: Heard(listener, device=device) for device in {one for _, one in DEVICES.values()}
    }
    async with listener:
        for example in EXAMPLES.values():
            await cti_server.send(example)
        for device, one in heard.items():
            await one.until(sum(device == other for _, other in DEVICES.values()))

    for device, one in heard.items():
        expected = [name for name, (_, other) in DEVICES.items() if other == device]
        assert one.by_device.keys() == {device}
        received = one.by_device[device]
        assert [type(event).__name__ for event in received] == [DEVICES[n][0] for n in expected]
        for event, name in zip(received, expected, strict=True):
            assert without_relay(event.as_received()) == EXAMPLES[name]


def difficult_stream() -> Iterator[dict[str, Any]]:
    """Agent and csta serials interleaved, shared by two devices, and begun anew half-way."""
    for second, restarted in enumerate((False, True)):
        for n in range(200):
            stamp = f"2017.03.18 14:{13 + 10 * second}:{n // 4:02}"
            for device in (8001, 8002):
                base = {"eventTime": stamp, "serial": (100 if restarted else 5000) + n}
                yield make("held", device, callId=f"call-{n}", **base)
                yield make_agent("agentReady", device - 3000, device, **base)


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_each_distinct_event_is_handled_once_in_its_devices_order(
    cti_server: SimulatorServer, wire: str
) -> None:
    stream = list(difficult_stream())
    listener = Listener(url_of(cti_server, wire), namespace=NAMESPACE, proxy=None)
    heard = Heard(listener)
    async with listener:
        for event in stream:
            await cti_server.send(event, times=2)
        for late in stream[::7]:  # and some a third time, out of nowhere
            await cti_server.send(late)
        await cti_server.send(make(device=8003))
        await heard.until(len(stream) + 1)
    stats = listener.stats()

    for device in (8001, 8002):
        expected = [event for event in stream if event["srcDeviceId"] == device_id(device)]
        received = [event.as_received() for event in heard.by_device[device_id(device)]]
        assert [without_relay(one) for one in received] == expected
    assert stats.distinct == 1600 + 1
    assert stats.repeated == 1600 + len(stream[::7])
    assert [gap.reason for gap in stats.gaps] == ["server_restarted"] * 2  # agent and csta


async def test_a_centre_with_repeats_and_restarts_is_heard_as_it_happened() -> None:
    ledger = Ledger()
    faults = Faults(repeat=0.5, restart_every=60.0, malformed=0.05)
    centre = itertools.islice(Centre(7, agents=20, rate=20).run(), 4000)
    async with SimulatorServer(
        centre=centre, faults=faults, speed=0, ledger=ledger, seed=7
    ) as server:
        listener = Listener(server.stomp_url, namespace=NAMESPACE, proxy=None, lane_size=10_000)
        heard = Heard(listener)
        async with listener:
            await server.wait_played()
            await heard.until(4000)
        stats = listener.stats()

    expected: defaultdict[str, list[Any]] = defaultdict(list)
    for sent in ledger.sent:
        if not sent.repeat:
            device = sent.event.get("srcDeviceId") or sent.event["eventSrc"]
            expected[device].append(sent.event["serial"])
    assert {
        device: [event.serial for event in events] for device, events in heard.by_device.items()
    } == expected
    assert stats.repeated == server.stats.repeated > 1000
    assert sum(stats.bad.values()) == server.stats.malformed > 100


@pytest.mark.slow
async def test_a_slow_handler_of_one_device_delays_no_other_and_costs_no_connection() -> None:
    rate, seconds = 2000, 4
    stream = [
        (n / rate, make("held", 8002 if n % 20 == 0 else 8001, callId=f"call-{n}"))
        for n in range(rate * seconds)
    ]
    delays: list[float] = []
    delays_of_slow: list[float] = []
    dropped: list[int] = []

    def age(event: Event) -> float:
        assert event.delivery.received_at is not None
        return (datetime.now(UTC) - event.delivery.received_at).total_seconds()

    async with SimulatorServer(centre=stream, await_subscriber=True) as server:
        listener = Listener(server.json_url, namespace=NAMESPACE, proxy=None)

        @listener.on(device="8001")
        async def slow(event: Event) -> None:
            delays_of_slow.append(age(event))
            await asyncio.sleep(0.05)

        @listener.on(device="8002")
        async def quick(event: Event) -> None:
            delays.append(age(event))

        @listener.on(Overflow)
        async def told(notice: Overflow) -> None:
            dropped.append(notice.dropped)

        async with listener:
            await server.wait_played()
            async with listener.expect("held", device="8003", timeout=PATIENCE):
                await server.send(make("held", 8003))
            stats = listener.stats()
            left = await listener.stop(drain=0.5)

    assert len(delays) == rate * seconds / 20
    assert sorted(delays)[int(0.99 * len(delays))] < median(delays_of_slow) / 2
    assert (stats.connections, stats.received) == (1, rate * seconds + 1)
    assert server.stats.slow == 0
    # Nothing is lost without a word: handled, dropped and told, or handed back.
    handled = listener.stats().handlers[slow.__qualname__].handled
    lost = listener.stats().handlers[slow.__qualname__].dropped
    assert handled + lost + sum(len(one.happenings) for one in left) == rate * seconds * 19 / 20
    assert 0 < sum(dropped) <= lost


async def test_a_handler_that_blocks_slows_the_reader_and_loses_nothing() -> None:
    stream = ((0.0, make(callId=f"call-{n}")) for n in range(5000))
    async with SimulatorServer(centre=stream, speed=0) as server:
        listener = Listener(server.json_url, namespace=NAMESPACE, proxy=None)
        serials: list[int | None] = []

        @listener.on(overflow="block", lane_size=50)
        async def write(event: Event) -> None:
            serials.append(event.serial)
            if len(serials) % 50 == 0:
                await asyncio.sleep(0.001)

        async with listener:
            await server.wait_played()
            last = make("held")
            async with listener.expect("held", timeout=PATIENCE):
                await server.send(last)
            assert await listener.stop() == []
    assert len(serials) == 5001
    assert serials == sorted(serials, key=lambda serial: serial or 0)
    assert listener.stats().connections == 1


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_a_loop_blocked_for_longer_than_the_silence_limit_costs_no_connection(
    unblocked: BlockBuster, wire: str
) -> None:
    unblocked.functions["time.sleep"].can_block_in("test_end_to_end.py", "screen_pop")
    async with simulator_elsewhere() as elsewhere:
        listener = Listener(
            url_of(elsewhere.server, wire),
            namespace=NAMESPACE,
            proxy=None,
            ping_interval=0.2,
            silence_limit=0.6,
            block_limit=0.2,
        )

        @listener.on(Delivered)
        async def screen_pop(_: Event) -> None:
            for _turn in range(2):  # in a row, and each too long
                time.sleep(1.0)  # noqa: ASYNC251 - as no handler should
                await asyncio.sleep(0)

        with capture_logs() as logs:
            async with listener:
                await elsewhere.do(elsewhere.server.send(make("delivered")))
                async with listener.expect(Disconnected, "held", timeout=PATIENCE) as first:
                    # It waits in the socket while the loop is blocked.
                    await elsewhere.do(elsewhere.server.send(make("held")))
                assert first.event.event_name == "held"
                with pytest.raises(WaitTimeoutError):  # it is asked, and answers
                    await listener.wait_for(Disconnected, timeout=1.2)
                stats = listener.stats()
    assert (stats.connections, stats.attempts, stats.gaps) == (1, 1, ())
    assert stats.blocked in {1, 2}
    assert stats.longest_block > 0.7
    blocked = next(line for line in logs if line["event"] == "loop_blocked")
    assert blocked["handler"] == screen_pop.__qualname__
    assert "time.sleep(1.0)" in blocked["stack"]


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_filters_pass_what_was_asked_for_on_a_server_that_sends_everybody(
    cti_server: SimulatorServer, wire: str
) -> None:
    listener = Listener(
        url_of(cti_server, wire) + ("?all=yes" if wire == "json" else ""),
        namespace=NAMESPACE,
        devices=["8001"],
        agents=["5002"],
        topics=["/topic/event.agent.*.*"],
        proxy=None,
    )
    heard = Heard(listener, order="all")
    asked = [
        make("held", 8001, callId="asked for by device"),
        make_agent("agentLoggedOn", 5002, 8002, eventTime="2017.03.18 14:13:24"),
        make("delivered", 8002, callId="where the agent sits"),
        make_agent("agentLoggedOn", 5002, 8007, eventTime="2017.03.18 14:20:00"),
        make("delivered", 8007, callId="where the agent has moved"),
        make_agent("agentReady", 5001, 8001, eventTime="2017.03.18 14:21:00"),
        make("held", 8007, callId="still there"),
    ]
    others = [
        make("held", 8002, callId="nobody asked for sits there yet"),
        make_agent("agentReady", 5003, 8003, eventTime="2017.03.18 14:13:30"),
        make("held", 8003),
        make("held", 8007, callId="not there yet"),
        make("held", 8002, callId="no longer there"),
        make_agent("agentLoggedOn", 5004, 8002, eventTime="2017.03.18 14:22:00"),
        make("held", 8002, callId="somebody else is"),
    ]
    async with listener:
        order = (
            others[0],
            *asked[:3],
            *others[1:4],
            *asked[3:5],
            others[4],
            *asked[5:],
            *others[5:],
        )
        for event in order:
            assert await cti_server.send(event) == 1
        last = make("held", 8001, callId="the last")
        await cti_server.send(last)
        await heard.until(len(asked) + 1)
        assert listener.stats().not_asked_for == len(others)

    received = [event.serial for events in heard.by_device.values() for event in events]
    assert sorted(received, key=str) == sorted((one["serial"] for one in (*asked, last)), key=str)


async def test_an_agents_topic_brings_their_calls_wherever_they_sit(
    cti_server: SimulatorServer,
) -> None:
    listener = Listener(cti_server.stomp_url, namespace=NAMESPACE, agents=["5002"], proxy=None)
    heard = Heard(listener)
    async with listener:
        (session,) = cti_server.sessions
        assert [one.destination for one in session.subscriptions] == [
            "/topic/event.agent.*.5002@zhen04_cc"
        ]
        await cti_server.send(make_agent("agentLoggedOn", 5002, 8002))
        await cti_server.send(make("delivered", 8002))
        await cti_server.send(
            make_agent("agentLoggedOn", 5002, 8007, eventTime="2017.03.18 15:00:00")
        )
        assert await cti_server.send(make("delivered", 8002)) == 0
        await cti_server.send(make("delivered", 8007))
        await heard.until(4)
    assert [len(heard.by_device[device_id(one)]) for one in (8002, 8007)] == [2, 2]


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_stopped_during_load_everything_handed_to_the_codec_is_handled(wire: str) -> None:
    stream = ((0.0, make(device=8001 + n % 50, callId=f"call-{n}")) for n in itertools.count())
    async with SimulatorServer(centre=stream, speed=0) as server:
        listener = Listener(
            url_of(server, wire), namespace=NAMESPACE, lane_size=100_000, proxy=None
        )
        serials: defaultdict[str | None, list[int]] = defaultdict(list)
        enough = asyncio.Event()

        @listener.on(Delivered)
        async def keep(event: Delivered) -> None:
            await asyncio.sleep(0)
            serials[event.device].append(event.serial or 0)
            if len(serials[event.device]) == 100:
                enough.set()

        async with listener:
            await asyncio.wait_for(enough.wait(), PATIENCE)
            assert await listener.stop(drain=8.0) == []
            stats = listener.stats()

    assert sum(map(len, serials.values())) == stats.received == stats.distinct > 100
    assert all(one == sorted(one) for one in serials.values())
    assert (stats.waiting, stats.handlers[keep.__qualname__].handled) == (0, stats.received)


async def test_a_dropped_connection_is_made_again_with_one_gap_between(
    cti_server: SimulatorServer,
) -> None:
    listener = Listener(cti_server.stomp_url, namespace=NAMESPACE, proxy=None)
    told: list[object] = []

    @listener.on(Event, Gap, device="8002")
    async def keep(happening: Event | Gap) -> None:
        told.append(happening.serial if isinstance(happening, Event) else happening.reason)

    heard = Heard(listener, order="all")
    before, after = make(), make()
    async with listener:
        await cti_server.send(before)
        await heard.until(1)
        await cti_server.disconnect()
        await asyncio.wait_for(cti_server.wait_for_subscribers(), PATIENCE)
        await cti_server.send(after)
        await heard.until(2)
    assert told == [before["serial"], "disconnected", after["serial"]]
    (gap,) = listener.stats().gaps
    assert gap.last_before is not None
    assert gap.first_after is not None
    assert (gap.last_before.serial, gap.first_after.serial) == (before["serial"], after["serial"])
