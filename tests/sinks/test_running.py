"""Sinks as handlers: what is said of them, when the same is given again, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

import pytest
import structlog

from cti_listener import Event, HaltError, Listener, SinkAwayError, SinkError
from cti_listener.events import parse_event
from cti_listener.router import Happening, Order
from cti_listener.sinks.outlet import CHANGED, STILL, Outlet
from cti_listener.sinks.running import attach, opened
from cti_listener.testing import FakeSource, ManualClock
from tests.examples import make
from tests.sinks.support import HastyClock
from tests.turns import until


class Sink:
    """Does what it is told to, and says what was done to it."""

    order: Order = "device"

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.done: list[str] = []

    async def open(self) -> None:
        self.done.append("open")

    async def take(self, _: Happening) -> None:
        error = self.errors.pop(0) if self.errors else None
        self.done.append("take" if error is None else type(error).__name__)
        if error is not None:
            raise error

    async def close(self) -> None:
        self.done.append("close")


async def run(sink: Sink, *, events: int, until_: Callable[[Outlet], object]) -> Outlet:
    source = FakeSource()
    listener = Listener(source, namespace="zhen04.cc")
    outlet = Outlet("bell", sink, clock=HastyClock())
    attach(listener, [outlet], (), kept=False)
    async with opened([outlet]), listener:
        for serial in range(events):
            source.send(make(serial=serial))
        await until(lambda: until_(outlet))
    return outlet


async def test_it_is_open_before_anything_is_given_and_closed_behind_the_last() -> None:
    sink = Sink()
    await run(sink, events=3, until_=lambda one: one.counts["taken"])
    assert sink.done == ["open", "take", "take", "take", "close"]


async def test_it_fails_and_recovers_and_each_is_said_once() -> None:
    away = SinkAwayError("bell", "is away")
    with structlog.testing.capture_logs() as logs:
        outlet = await run(
            Sink(away, OSError(28, "No space left on device"), away, None, None, away),
            events=3,
            until_=lambda one: one.counts["taken"] == 3,
        )
    said = [(one["event"], one.get("problem"), one.get("tries")) for one in logs]
    assert [one for one in said if one[0].startswith("sink")] == [
        ("sink_failing", "is away", None),
        ("sink_recovered", None, 3),
        ("sink_failing", "is away", None),
        ("sink_recovered", None, 1),
    ]
    assert dict(outlet.counts) == {"tried_again": 4, "taken": 3}
    assert repr(outlet) == "<Outlet bell well, 3 taken>"


async def test_what_it_refuses_and_what_is_a_bug_of_its_own_is_not_given_again() -> None:
    sink = Sink(SinkError("bell", "never"), ZeroDivisionError())
    outlet = await run(sink, events=3, until_=lambda one: one.counts["taken"])
    assert sink.done == ["open", "SinkError", "ZeroDivisionError", "take", "close"]
    assert outlet.counts["refused"] == 2


async def test_it_halts_once() -> None:
    sink = Sink(None, HaltError("enough"))
    with structlog.testing.capture_logs() as logs:
        outlet = await run(sink, events=5, until_=lambda one: one.halted)
        with pytest.raises(HaltError, match="enough"):
            await outlet.take(None)  # type: ignore[arg-type]  # it is not looked at
    assert sink.done == ["open", "take", "HaltError", "close"]
    assert [one["problem"] for one in logs if one["event"] == "sink_halted"] == ["enough"]


async def test_one_that_cannot_be_opened_leaves_none_open() -> None:
    class Broken(Sink):
        async def open(self) -> None:
            raise ZeroDivisionError

    sink = Sink()
    outlets = [Outlet("a", sink, clock=HastyClock()), Outlet("b", Broken(), clock=HastyClock())]
    with pytest.raises(ZeroDivisionError):
        async with opened(outlets):
            pass
    assert sink.done == ["open", "close"]


async def test_what_ends_the_block_is_raised_as_it_is_and_a_bad_end_is_only_logged() -> None:
    class Clinging(Sink):
        async def close(self) -> None:
            raise OSError("no")

    with structlog.testing.capture_logs() as logs, pytest.raises(KeyError):
        async with opened([Outlet("a", Clinging(), clock=HastyClock())]):
            raise KeyError
    assert [(one["event"], one["problem"]) for one in logs] == [("sink_not_closed", "no")]


async def test_waits_grow_and_what_is_asked_for_counts() -> None:
    clock = HastyClock()
    outlet = Outlet("bell", Sink(), clock=clock)
    errors = [SinkAwayError("bell", "x", after=7.0), SinkAwayError("bell", "x"), OSError()]

    async def fail() -> None:
        if errors:
            raise errors.pop(0)

    await outlet.retry.copy()(fail)
    assert clock.slept[0] == 7.0
    assert all(0.0 < one <= 1.0 for one in clock.slept[1:])


async def test_what_hung_up_before_they_were_open_has_them_begin_anew_once_they_are() -> None:
    class Rotated(Sink):
        async def reopen(self) -> None:
            self.done.append("reopen")

    sink, hung_up = Rotated(), asyncio.Event()
    hung_up.set()
    async with opened([Outlet("a", sink, clock=HastyClock())], hung_up):
        await until(lambda: "reopen" in sink.done)
    assert sink.done == ["open", "reopen", "close"]


async def test_all_have_the_same_time_to_close() -> None:
    class Slow(Sink):
        async def close(self) -> None:
            self.done.append("closing")
            await asyncio.Event().wait()

    sinks = [Slow() for _ in range(3)]
    with structlog.testing.capture_logs() as logs:
        async with opened([Outlet("a", one, clock=HastyClock()) for one in sinks], within=0.0):
            pass
    said = [(one["event"], one["problem"]) for one in logs]
    assert said == [("sink_not_closed", "not within 0 s")] * 3


# By lanes


class OfDevices(Sink):
    """Is away for the devices in `away`, with a problem each."""

    def __init__(self) -> None:
        super().__init__()
        self.away: dict[str, str] = {}
        self.refuses: set[str] = set()

    async def take(self, happening: Happening) -> None:
        assert isinstance(happening, Event)
        device = str(happening.device).partition("@")[0]
        if device in self.refuses:
            raise SinkError("bell", "never")
        if (problem := self.away.get(device)) is not None:
            raise SinkAwayError("bell", problem)
        await super().take(happening)


def of(logs: list[MutableMapping[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    """Return these fields of the lines about sinks."""
    return [
        tuple(one.get(field) for field in fields)
        for one in logs
        if one["event"].startswith("sink_")
    ]


class Lanes:
    """An outlet, given one event of a device at a time."""

    def __init__(self) -> None:
        self.sink = OfDevices()
        self.clock = ManualClock()
        self.outlet = Outlet("bell", self.sink, clock=self.clock)

    async def give(self, *devices: int) -> None:
        for device in devices:
            with suppress(SinkError):
                await self.outlet.take(parse_event(make(device=device)))


async def test_it_has_not_recovered_while_a_lane_fails() -> None:
    it = Lanes()
    it.sink.away = {"8002": "chokes on it", "8003": "is busy"}
    with structlog.testing.capture_logs() as logs:
        await it.give(8001, 8002, 8001, 8003, 8002, 8001)
        it.sink.away.pop("8003")
        await it.give(8003, 8001)
        assert of(logs, "event", "device", "lanes") == [("sink_failing", "8002@zhen04.cc", 1)]
        it.sink.away.clear()
        await it.give(8002)
    assert of(logs, "event", "problem", "tries")[1:] == [("sink_recovered", None, 3)]
    assert repr(it.outlet) == "<Outlet bell well, 6 taken>"


async def test_a_refusal_ends_the_failing_of_its_lane_as_well() -> None:
    it = Lanes()
    it.sink.away = {"8002": "chokes on it"}
    with structlog.testing.capture_logs() as logs:
        await it.give(8002)
        it.sink.refuses.add("8002")
        await it.give(8002)
    said = [("sink_failing",), ("sink_recovered",), ("sink_refused",)]
    assert of(logs, "event") == said


async def test_in_a_long_outage_another_problem_is_said_soon_and_the_same_seldom() -> None:
    it = Lanes()
    it.sink.away = {"8002": "is busy"}
    with structlog.testing.capture_logs() as logs:
        await it.give(8002, 8002)
        it.sink.away = {"8002": "has a full disk", "8003": "has a full disk"}
        await it.give(8002, 8003)
        await it.clock.advance(CHANGED)
        await it.give(8002, 8003, 8003)
        await it.clock.advance(CHANGED)
        await it.give(8002)
        await it.clock.advance(STILL)
        await it.give(8002)
    assert of(logs, "event", "problem", "lanes") == [
        ("sink_failing", "is busy", 1),
        ("sink_failing", "has a full disk", 2),
        ("sink_failing", "has a full disk", 2),
    ]


async def test_one_that_has_halted_is_not_forgotten() -> None:
    it = Lanes()
    it.sink.errors = [HaltError("enough")]
    with structlog.testing.capture_logs() as logs:
        it.outlet.look()
        with pytest.raises(HaltError):
            await it.outlet.take(parse_event(make()))
        it.outlet.look()
        await it.clock.advance(STILL)
        it.outlet.look()
        it.outlet.look()
    assert of(logs, "event", "log_level") == [("sink_halted", "error")] * 2


async def test_what_it_refuses_is_lost_unless_a_journal_keeps_it() -> None:
    it = Lanes()
    it.sink.refuses = {"8002"}
    with structlog.testing.capture_logs() as logs:
        await it.give(8002, 8002)
        it.outlet.kept = True
        await it.give(8002)
    assert of(logs, "event", "problem", "log_level") == [("sink_refused", "never", "warning")]
    assert (it.outlet.lost, it.outlet.counts["refused"]) == (2, 3)
