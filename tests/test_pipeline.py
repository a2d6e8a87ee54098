"""What is counted on the way of an event, and which gaps are told."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cti_listener.clock import Clock
from cti_listener.dedupe import Dedupe
from cti_listener.dispatcher import Dispatcher
from cti_listener.errors import ConnectError
from cti_listener.event_base import Delivery, Event
from cti_listener.handover import Handover
from cti_listener.interest import Interest
from cti_listener.journal.base import Opened
from cti_listener.notices import Gap, Notice
from cti_listener.pipeline import Pipeline
from cti_listener.router import Handler, make_wish
from cti_listener.streams import EventStream
from cti_listener.testing import ManualClock
from cti_listener.values import EventKey, identity, routing_key
from cti_listener.wire.base import MessageBad
from tests.examples import NAMESPACE, device_id, make, make_agent

NOON = "2017.03.18 12:00:00"
LATER = "2017.03.18 12:05:00"


class Way:
    """A pipeline and its lanes, without a listener; what is routed is kept as it is put."""

    def __init__(self, interest: Interest | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.put: list[Any] = []
        self.handover = Handover()
        self.pipeline = Pipeline(
            interest or Interest(NAMESPACE), Dedupe(), self.clock, self.handover
        )
        self.dispatcher = Dispatcher(
            now=self.clock.now,
            tell=self.handover.tell,
            pressure=lambda _: None,
            crashed=lambda _: None,
        )
        self.handover.attach(self.dispatcher)

    def ask(self, *kinds: Any, **filters: Any) -> Handler:
        async def run(_: object) -> None:
            pass

        handler = Handler(
            name=f"handler {len(list(self.handover.handlers))}",
            wish=make_wish(kinds, namespace=NAMESPACE, **filters),
            run=run,
        )
        self.handover.handlers.add(handler)
        return handler

    def tap(self, *kinds: Any) -> EventStream[Any]:
        return EventStream(make_wish(kinds, namespace=NAMESPACE), self.handover.taps, 100)

    def send(self, *events: dict[str, Any], destination: str | None = None) -> None:
        """Receive one message with these events."""
        delivery = Delivery(self.clock.now())
        self.pipeline.message_received(delivery)
        for event in events:
            self.pipeline.event_received(event, destination, delivery)

    def subscribe(self) -> None:
        self.pipeline.subscribed("ws://cti.test/", feed="a", confirmed=True, attempts=1)

    def lose(self) -> None:
        self.pipeline.lost(
            "ws://cti.test/", feed="a", since=self.clock.now(), reason="disconnected", detail=""
        )

    @property
    def reasons(self) -> list[str]:
        return [gap.reason for gap in self.pipeline.stats().gaps]


@pytest.fixture
def way() -> Way:
    return Way()


# Counts


def test_every_event_received_is_not_asked_for_or_repeated_or_distinct(way: Way) -> None:
    held = make("held")
    way.ask("held")
    way.send(held, held, make("delivered"))
    way.send(held, make("held", namespace="elsewhere.cc"))
    way.pipeline.message_bad(MessageBad("not_json", "no", b"<html>"))
    stats = way.pipeline.stats()
    assert (stats.frames, stats.received) == (2, 5)
    assert (stats.not_asked_for, stats.repeated, stats.distinct, stats.unrouted) == (1, 2, 2, 1)
    assert stats.received == stats.not_asked_for + stats.repeated + stats.distinct
    assert (stats.remembered, stats.waiting, stats.bad) == (2, 1, {"not_json": 1})
    assert stats.last_event_at == stats.last_frame_at == way.clock.now()
    assert stats.handlers["handler 0"].waiting == 1


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANYTHING = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [
        "eventName",
        "eventType",
        "namespace",
        "serial",
        "eventTime",
        "callId",
        "deviceId",
        "srcDeviceId",
        "eventSrc",
        "agentId",
    ]
)
PLAIN = st.sampled_from(
    ["held", "agent", "csta", NAMESPACE, device_id(8002), "8002", NOON, LATER, 7, 8, 10**6]
)


@settings(max_examples=150)
@given(
    st.lists(
        st.dictionaries(NAMES | st.text(max_size=3), PLAIN | ANYTHING, max_size=10), max_size=12
    )
)
def test_the_counts_add_up_whatever_comes(events: list[dict[str, Any]]) -> None:
    way = Way(Interest(NAMESPACE, devices=["8002"], agents=["5002"]))
    way.ask()
    way.send(*events, *events)
    stats = way.pipeline.stats()
    assert stats.received == 2 * len(events)
    assert stats.bad.get("internal", 0) == 0
    assert stats.received == stats.not_asked_for + stats.repeated + stats.distinct
    assert stats.distinct == way.pipeline.stats().waiting


def test_streams_count_as_somebody_who_wants_it(way: Way) -> None:
    stream = way.tap("held")
    way.send(make("held"), make("delivered"))
    assert way.pipeline.stats().unrouted == 1
    assert "1 waiting" in repr(stream)


def test_a_filter_that_fails_costs_nobody_else_the_event(way: Way) -> None:
    def failing(event: Event) -> bool:
        raise ValueError(event.serial)

    bad, good = way.ask("held", where=failing), way.ask("held")
    with capture_logs() as logs:
        way.send(make("held"))
    stats = way.pipeline.stats()
    assert (bad.waiting, good.waiting, stats.distinct, stats.bad) == (0, 1, 1, {})
    assert [entry["event"] for entry in logs] == ["filter_failed"]


def test_a_bug_on_one_event_is_counted_and_the_next_one_comes_through(way: Way) -> None:
    handler = way.ask("held")

    class Odd(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise ZeroDivisionError

    with capture_logs() as logs:
        way.send(Odd(eventName="held"), make("held"))
    assert way.pipeline.stats().bad == {"internal": 1}
    assert handler.waiting == 1
    assert [(entry["event"], entry["keys"]) for entry in logs] == [("event_failed", ["eventName"])]


def test_one_event_by_two_destinations_is_a_repeat_though_only_one_passes() -> None:
    way = Way(Interest(NAMESPACE, agents=["5002"]))
    (mine,) = way.pipeline.interest.destinations(())
    handler = way.ask()
    event = make(device=8009)
    way.send(event, destination="/topic/event.agent.*.*")
    way.send(event, destination=mine)
    way.send(event, destination=mine)
    stats = way.pipeline.stats()
    assert (stats.not_asked_for, stats.distinct, stats.repeated) == (1, 1, 1)
    assert handler.waiting == 1


def test_attempts_and_connections_are_counted_once_each(way: Way) -> None:
    way.pipeline.attempt_failed(ConnectError("ws://cti.test/", "no"), feed="a")
    way.subscribe()
    stats = way.pipeline.stats()
    assert (stats.attempts, stats.connections, stats.connected) == (2, 1, True)
    assert (stats.url, stats.connected_since) == ("ws://cti.test/", way.clock.now())
    way.lose()
    assert (way.pipeline.stats().connected, way.pipeline.stats().connected_since) == (False, None)


# Gaps


@pytest.mark.parametrize("kind", ["csta", "agent"])
def test_a_counter_that_falls_back_while_time_goes_on_is_a_gap(way: Way, kind: str) -> None:
    stream = way.tap(Gap)
    creates = make if kind == "csta" else make_agent
    way.send(creates("held" if kind == "csta" else "agentReady", serial=5000, eventTime=NOON))
    first = creates("held" if kind == "csta" else "agentReady", serial=10, eventTime=LATER)
    way.send(first)
    (gap,) = way.pipeline.stats().gaps
    assert (gap.reason, gap.devices) == ("server_restarted", frozenset())
    assert gap.last_before is not None
    assert gap.first_after is not None
    assert (gap.last_before.serial, gap.first_after.serial) == (5000, 10)
    assert "1 waiting" in repr(stream)


@pytest.mark.parametrize("written", [str, float])
def test_a_number_that_is_not_written_as_one_tells_of_a_restart_too(
    way: Way, written: Callable[[int], object]
) -> None:
    way.send(make(serial=written(5000), eventTime=NOON), make(serial=written(10), eventTime=LATER))
    assert way.reasons == ["server_restarted"]


@pytest.mark.parametrize("written", [int, str, float])
def test_a_restart_while_nobody_listened_is_a_gap_however_numbers_are_written(
    way: Way, written: Callable[[int], object]
) -> None:
    old = make(serial=written(5000), eventTime=NOON)
    last = EventKey(*identity(old, routing_key(old))), way.clock.now()
    way.pipeline.resume(
        Opened(
            last_sign=None,
            unfinished={},
            absent={},
            last_seq=1,
            latest=[last],
            last_gap=0,
            open_gaps=(),
            seen=array("q"),
        )
    )
    way.send(make(serial=written(10), eventTime=LATER))
    assert way.reasons == ["server_restarted"]


@pytest.mark.parametrize("odd", [{"namespace": None}, {"namespace": []}, {"eventType": 1}])
def test_events_that_do_not_say_whose_counter_it_is_share_none(odd: dict[str, Any]) -> None:
    way = Way(Interest(None))
    way.send(make(serial=5000, eventTime=NOON, **odd), make(serial=10, eventTime=LATER, **odd))
    assert way.pipeline.stats().distinct == 2
    assert way.pipeline.stats().gaps == ()


def test_a_gap_of_a_restart_stands_ahead_of_the_event_that_tells_of_it(way: Way) -> None:
    happened: list[Any] = []

    async def run(happening: Event | Notice) -> None:
        happened.append(happening)

    way.handover.handlers.add(
        Handler(
            name="all",
            wish=make_wish((Event, Gap), namespace=NAMESPACE),
            run=run,
            order="all",
        )
    )

    async def drained() -> None:
        way.dispatcher.start()
        assert await way.dispatcher.drain(1.0) == []

    way.send(make(serial=5000, eventTime=NOON), make(serial=10, eventTime=LATER))
    asyncio.run(drained())
    assert [one.serial if isinstance(one, Event) else one.event_name for one in happened] == [
        5000,
        "gap",
        10,
    ]


def test_what_is_no_restart_is_no_gap(way: Way) -> None:
    way.send(make(serial=5000, eventTime=NOON))
    way.send(make_agent(serial=10, eventTime=LATER))  # counted apart
    way.send(make(serial=4990, eventTime=NOON))  # late
    way.send(make(serial=6000, eventTime=LATER))  # a hole
    way.send(make(serial="7", eventTime=LATER), make(serial=None, eventTime=LATER))
    way.send(make(serial=5, namespace="elsewhere.cc", eventTime=LATER))
    assert way.reasons == []


def test_a_restart_of_a_namespace_nobody_asked_for_is_no_gap_of_ours(way: Way) -> None:
    way.send(make(serial=5000, namespace="elsewhere.cc", eventTime=NOON))
    way.send(make(serial=5, namespace="elsewhere.cc", eventTime=LATER))
    assert way.reasons == []


def test_a_refused_destination_is_an_open_gap_until_it_is_accepted() -> None:
    way = Way(Interest(NAMESPACE, devices=["8002"]))
    here, there = way.ask(Gap, device="8002"), way.ask(Gap, device="8003")
    destination = "/topic/device.8002@zhen04_cc"
    way.pipeline.destination_refused(
        destination, feed="a", since=datetime(2026, 1, 1, tzinfo=UTC), detail="no"
    )
    (gap,) = way.pipeline.stats().gaps
    assert (gap.reason, gap.destination, gap.until) == ("refused", destination, None)
    assert gap.devices == {device_id(8002)}
    assert here.waiting == 0
    way.pipeline.destination_accepted(destination, feed="a")
    way.pipeline.destination_accepted(destination, feed="a")  # told once
    (gap,) = way.pipeline.stats().gaps
    assert gap.until == way.clock.now()
    assert (here.waiting, there.waiting) == (1, 0)


def test_a_loss_within_a_loss_is_one_gap_from_the_first_to_the_end(way: Way) -> None:
    way.subscribe()
    since = way.clock.now()
    way.lose()
    asyncio.run(way.clock.advance(3.0))  # type: ignore[attr-defined]
    way.lose()
    asyncio.run(way.clock.advance(4.0))  # type: ignore[attr-defined]
    way.subscribe()
    (gap,) = way.pipeline.stats().gaps
    assert gap.until is not None
    assert (gap.since, (gap.until - gap.since).total_seconds()) == (since, 7.0)


def test_a_message_too_large_to_be_taken_is_a_gap() -> None:
    way = Way()
    way.pipeline.message_bad(MessageBad("too_large", "2000000 bytes, above 1048576"))
    (gap,) = way.pipeline.stats().gaps
    assert (gap.reason, gap.since) == ("oversized", gap.until)
    assert way.pipeline.stats().bad == {"too_large": 1}
