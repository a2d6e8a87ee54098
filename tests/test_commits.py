"""The journal on an event's way: committed first, then handed over, and nothing is lost between."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cti_listener import Connected, Event, Gap, Listener, Notice
from cti_listener.commits import TURN, UNDER_WAY
from cti_listener.errors import HandlerError, JournalError, NotRunningError
from cti_listener.journal import visits
from cti_listener.testing import FakeSource, ManualClock
from tests.examples import device_id, make, make_agent
from tests.turns import until

PATIENCE = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@dataclass
class Work:
    """A handler that keeps what it did; it may be held, and fail."""

    done: list[Any] = field(default_factory=list)
    redelivered: list[int] = field(default_factory=list)
    held: asyncio.Event | None = None
    fails: Callable[[Event], bool] = lambda _: False

    async def __call__(self, happening: Event | Notice) -> None:
        if self.held is not None:
            await self.held.wait()
        if not isinstance(happening, Event):
            self.done.append(happening.event_name)
            return
        if self.fails(happening):
            raise ValueError(happening.call_id)
        self.done.append(happening.serial)
        if happening.delivery.redelivered:
            assert happening.serial is not None
            self.redelivered.append(happening.serial)

    def hold(self) -> None:
        self.held = asyncio.Event()

    def let_go(self) -> None:
        assert self.held is not None
        self.held.set()


@dataclass
class Listening:
    """A listener that runs on a journal, with a source in the test's hands."""

    listener: Listener
    source: FakeSource
    clock: ManualClock

    @property
    def landed(self) -> bool:
        stats = self.listener.stats().journal
        assert stats is not None
        return stats.pending == 0

    async def settle(self) -> None:
        """Wait until all is committed and handled, and the marks are on disk."""
        await until(lambda: self.landed and not self.listener.stats().waiting)


def make_listener(
    path: Path, clock: ManualClock, works: dict[str, Work], *kinds: Any, **options: Any
) -> tuple[Listener, FakeSource]:
    source = FakeSource(clock)
    named = {name: options.pop(name) for name in ("order",) if name in options}
    listener = Listener(source, namespace="zhen04.cc", journal=path, clock=clock, **options)
    for name, work in works.items():
        listener.on(*kinds, name=name, **named)(work)
    return listener, source


@asynccontextmanager
async def listening(
    path: Path, clock: ManualClock, works: dict[str, Work], *kinds: Any, **options: Any
) -> AsyncIterator[Listening]:
    listener, source = make_listener(path, clock, works, *kinds, **options)
    async with listener:
        yield Listening(listener, source, clock)


async def ask(path: Path, question: Callable[[sqlite3.Connection], Any], **options: Any) -> Any:
    """Ask the journal something, as the command line does: beside the listener."""

    def visit() -> Any:
        with visits.visit(path, **options) as db:
            return question(db)

    return await asyncio.to_thread(visit)


async def undone(path: Path) -> dict[str, int]:
    facts = await ask(path, lambda db: visits.summary(db, path))
    return {one["name"]: one["unfinished"] for one in facts["handlers"]}


async def committed(path: Path) -> list[Any]:
    return [one["event"]["serial"] for one in await ask(path, lambda db: list(visits.events(db)))]


# Committed first


async def test_an_event_is_on_disk_before_anybody_is_given_it(
    path: Path, clock: ManualClock
) -> None:
    kept: list[int] = []

    async def look(_: Event) -> None:
        def count() -> int:
            with closing(sqlite3.connect(path)) as db:
                return int(db.execute("SELECT count(*) FROM event").fetchone()[0])

        kept.append(await asyncio.to_thread(count))

    listener, source = make_listener(path, clock, {})
    listener.on()(look)  # not durable, and yet
    async with listener:
        source.send(make())
        assert listener.stats().waiting == 0
        await until(lambda: kept)
    assert kept == [1]


async def test_notices_stand_where_they_came_though_events_wait_for_the_disk(
    path: Path, clock: ManualClock
) -> None:
    work = Work()
    async with listening(path, clock, {"work": work}, Event, Connected, Gap, order="all") as on:
        for serial in range(3):
            on.source.send(make(serial=serial))
        on.source.disconnect()
        on.source.connect()
        on.source.send(make(serial=3))
        assert work.done in ([], ["connected"])  # nothing is committed within one turn
        await on.settle()
    assert work.done == ["connected", 0, 1, 2, "connected", "gap", 3]


async def test_the_handlers_have_turns_while_much_is_handed_over(
    path: Path, clock: ManualClock
) -> None:
    work = Work()
    most = 0
    async with listening(path, clock, {"work": work}) as on:
        for serial in range(10 * TURN):
            on.source.send(make(serial=serial, device=8000 + serial))
        while len(work.done) < 10 * TURN:
            most = max(most, on.listener.stats().waiting)
            await asyncio.sleep(0)
    assert 0 < most <= TURN
    assert work.done == list(range(10 * TURN))


async def test_reading_is_paused_while_too_much_waits_for_the_disk(
    path: Path, clock: ManualClock
) -> None:
    async with listening(path, clock, {}) as on:
        for serial in range(UNDER_WAY):
            on.source.send(make(serial=serial))
        assert not on.source.paused
        on.source.send(make(serial=UNDER_WAY))
        assert on.source.paused
        await until(lambda: not on.source.paused)
        stats = on.listener.stats().journal
        assert stats is not None
        assert stats.committed >= UNDER_WAY // 2


async def test_an_event_that_cannot_be_written_holds_nothing_up(
    path: Path, clock: ManualClock
) -> None:
    """A source of somebody's own may bring what is no JSON."""
    work = Work()
    async with listening(path, clock, {"work": work}, Event, Gap, order="all") as on:
        on.source.send(make(serial=1, odd=object()))
        on.source.send(make(serial=2))
        on.source.disconnect()
        on.source.connect()
        await on.settle()
        assert on.listener.stats().bad == {"internal": 1}
    assert work.done == [2, "gap"]


async def test_lone_surrogates_anywhere_end_nothing_and_come_back_as_they_were(
    path: Path, clock: ManualClock
) -> None:
    device, call = "80\ud80002@zhen04.cc", "call \udfff"
    odd = make(serial=1, srcDeviceId=device, callId=call, agentName="\ud800")
    work = Work(fails=lambda event: event.serial == 2)
    work.hold()
    async with listening(path, clock, {"work": work}) as on:
        on.source.send(odd)
        on.source.send(make(serial=2, srcDeviceId=device, callId=call))
        await until(lambda: on.landed)
        await on.listener.stop(drain=0.0)
    events: list[Event] = []

    def fails(event: Event) -> bool:
        events.append(event)
        return event.serial == 2

    again = Work(fails=fails)
    async with listening(path, clock, {"work": again}) as on:
        on.source.send(odd)
        await on.settle()
        assert on.listener.stats().repeated == 1
    assert events[0].as_received() == odd
    assert [event.device for event in events] == [device, device]
    assert (again.done, again.redelivered) == ([1], [1])
    (letter,) = await ask(path, lambda db: list(visits.dead(db)))
    assert (letter["device"], letter["callId"]) == (device, call)
    assert "ValueError: call \\udfff" in letter["error"]
    found = await ask(path, lambda db: list(visits.events(db, device=device)))
    assert [one["seq"] for one in found] == [1, 2]
    async with listening(path, clock, {"work": Work()}) as on:
        assert await undone(path) == {"work": 0}


# After a restart


@pytest.mark.parametrize("order", ["device", "all"])
async def test_what_was_left_is_done_first_and_marked(
    path: Path, clock: ManualClock, order: str
) -> None:
    first = Work()
    first.hold()
    async with listening(path, clock, {"work": first}, order=order, lane_size=7) as on:
        for serial in range(100):
            on.source.send(make(serial=serial, device=8000 + serial % 2))
        await until(lambda: on.landed)
        left = await on.listener.stop(drain=0.0)
    assert {one.handler for one in left} == {"work"}
    assert first.done == []
    second = Work()
    async with listening(path, clock, {"work": second}, order=order, lane_size=7) as on:
        for serial in range(100, 110):
            on.source.send(make(serial=serial, device=8000 + serial % 2))
        await on.settle()
        await until(lambda: len(second.done) == 110)
    for device in (0, 1):
        assert [one for one in second.done if one % 2 == device] == list(range(device, 110, 2))
    assert order == "device" or second.done == list(range(110))
    assert sorted(second.redelivered) == list(range(100))
    assert await undone(path) == {"work": 0}


async def test_more_is_left_than_a_lane_takes_at_once(path: Path, clock: ManualClock) -> None:
    """As many as one page held in a lane of the same size: the rest was passed over once."""
    first = Work()
    first.hold()
    async with listening(path, clock, {"work": first}, order="all") as on:
        for serial in range(2500):
            on.source.send(make(serial=serial))
        await until(lambda: on.landed)
        await on.listener.stop(drain=0.0)
    second = Work()
    async with listening(path, clock, {"work": second}, order="all") as on:
        on.source.send(make(serial=2500))
        await until(lambda: len(second.done) == 2501)
    assert second.done == list(range(2501))


async def test_a_repeat_of_what_an_earlier_run_had_is_one(path: Path, clock: ManualClock) -> None:
    event, other = make(), make()
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.send(event)
        on.source.send(other)
    work = Work()
    async with listening(path, clock, {"work": work}) as on:
        on.source.send(other)
        on.source.send(event)
        on.source.send(make(serial=7))
        await on.settle()
        assert on.listener.stats().repeated == 2
    assert work.done == [7]


@pytest.mark.parametrize("said", ["0", 0, "", None])
async def test_what_names_no_call_is_of_no_call(
    path: Path, clock: ManualClock, said: object
) -> None:
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.send(make(serial=1, callId=said))
        on.source.send(make(serial=2, callId="c1"))
        await on.settle()
    calls = await ask(path, lambda db: db.execute("SELECT call FROM event").fetchall())
    assert calls == [(None,), ("c1",)]


async def test_a_durable_handler_is_registered_before_the_start(
    path: Path, clock: ManualClock
) -> None:
    listener, _ = make_listener(path, clock, {})
    asked_before = listener.on(name="late")
    async with listener:
        for register in (asked_before, listener.on(name="later")):
            with pytest.raises(HandlerError, match="register it before the start"):
                register(Work())


async def test_where_an_asked_agent_sits_is_known_to_the_next_run(
    path: Path, clock: ManualClock
) -> None:
    works = {"work": Work()}
    async with listening(path, clock, works, agents=["5002"]) as one:
        one.source.send(make(device=8002, serial=1))  # not known yet
        one.source.send(make_agent("agentLoggedOn", 5002, 8002, serial=2))
        one.source.send(make(device=8002, serial=3))
        await one.settle()
    async with listening(path, clock, works, agents=["5002"]) as one:
        one.source.send(make(device=8002, serial=4))
        one.source.send(make(device=8003, serial=5))
        await one.settle()
        assert one.listener.stats().not_asked_for == 1
    assert works["work"].done == [2, 3, 4]


@pytest.mark.parametrize("since", ["2999.01.01 00:00:00", "unknown"])
async def test_a_seat_from_a_time_that_has_yet_to_come_holds_nobody_there(
    path: Path, clock: ManualClock, since: str
) -> None:
    works = {"work": Work()}
    moved = "2017.01.01 00:00:00"
    async with listening(path, clock, works, agents=["5002"]) as one:
        one.source.send(make_agent("agentLoggedOn", 5002, 8001, serial=1, eventTime=since))
        await one.settle()
    async with listening(path, clock, works, agents=["5002"]) as one:
        one.source.send(make(device=8001, serial=2))
        one.source.send(make_agent("agentLoggedOn", 5002, 8002, serial=3, eventTime=moved))
        one.source.send(make(device=8002, serial=4))
        await one.settle()
    assert works["work"].done == [1, 2, 3, 4]


async def test_the_absence_is_a_gap_and_one_that_was_open_goes_on(
    path: Path, clock: ManualClock
) -> None:
    last = make(serial=5)
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.send(last)
        await on.settle()
        await clock.advance(3)
        on.source.disconnect()
        await clock.advance(30)
    await clock.advance(60)
    async with listening(path, clock, {"work": Work()}) as on:
        gaps = on.listener.stats().gaps
    assert [gap.reason for gap in gaps] == ["disconnected", "listener_down"]
    assert {gap.until for gap in gaps} == {clock.now()}
    assert all((clock.now() - gap.since).total_seconds() >= 90 for gap in gaps)
    assert all(gap.last_before is not None and gap.last_before.serial == 5 for gap in gaps)
    kept = await ask(path, lambda db: list(visits.gaps(db)))
    assert [one["until"] is None for one in kept] == [False, False]


async def test_a_gap_ahead_of_a_runs_first_event_names_the_last_one_of_the_run_before(
    path: Path, clock: ManualClock
) -> None:
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.send(make(serial=5))
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.disconnect()
        (*_, gap) = on.listener.stats().gaps
    assert (gap.reason, gap.until) == ("disconnected", None)
    assert gap.last_before is not None
    assert gap.last_before.serial == 5


async def test_a_server_that_restarted_while_nobody_listened_is_told(
    path: Path, clock: ManualClock
) -> None:
    async with listening(path, clock, {"work": Work()}) as on:
        for second in (10, 11):
            on.source.send(make(serial=5000 + second, eventTime=f"2026.03.18 12:00:{second}"))
        heard = clock.now()
        await on.settle()
    await clock.advance(60)
    async with listening(path, clock, {"work": Work()}) as on:
        await clock.advance(30)  # it stands, and the server is away
        on.source.send(make(serial=1, eventTime="2026.03.18 12:01:41"))
        (*_, gap) = on.listener.stats().gaps
        assert gap.reason == "server_restarted"
        assert (gap.since, gap.until) == (heard, clock.now())
        assert gap.last_before is not None
        assert gap.last_before.serial == 5011


async def test_the_first_event_of_a_run_stands_behind_the_gaps_of_the_one_before(
    path: Path, clock: ManualClock
) -> None:
    async with listening(path, clock, {"work": Work()}) as on:
        on.source.send(make(serial=5))
        await on.settle()
        on.source.disconnect()
        on.source.connect()
    async with listening(path, clock, {"work": Work()}) as on:
        for serial in (6, 7):
            on.source.send(make(serial=serial))
            await on.settle()
    kept = await ask(path, lambda db: list(visits.gaps(db)))
    assert [(one["reason"], one["firstAfter"]["serial"]) for one in kept] == [
        ("disconnected", 6),
        ("listener_down", 6),
    ]


# Dead letters


async def test_a_retried_letter_goes_to_the_tail_of_its_lane_marked(
    path: Path, clock: ManualClock
) -> None:
    forgiven = False
    work = Work(fails=lambda event: event.serial == 1 and not forgiven)
    other = Work()
    async with listening(path, clock, {"work": work, "other": other}) as on:
        for serial in range(3):
            on.source.send(make(serial=serial))
        await on.settle()
        assert (work.done, other.done) == ([0, 2], [0, 1, 2])
        await clock.advance(1)  # the letter is on disk by the next sign of life
        forgiven = True
        work.hold()
        on.source.send(make(serial=3))
        on.source.send(make(serial=4))
        await until(lambda: on.landed)
        assert await ask(path, lambda db: visits.retry(db, handler="work"), write=True) == 1
        await clock.advance(1)
        await until(lambda: on.listener.stats().handlers["work"].waiting == 3)
        on.source.send(make(serial=5))
        await until(lambda: on.landed)
        work.let_go()
        await on.settle()
    assert (work.done, work.redelivered) == ([0, 2, 3, 4, 1, 5], [1])
    assert other.done == [0, 1, 2, 3, 4, 5]
    assert await ask(path, lambda db: list(visits.dead(db))) == []
    assert await undone(path) == {"work": 0, "other": 0}


async def test_a_retry_waits_behind_what_an_earlier_run_left(
    path: Path, clock: ManualClock
) -> None:
    """Its number is the newest: if it were first, all before it would count as done."""
    work = Work(fails=lambda event: event.serial == 0)
    async with listening(path, clock, {"work": work}) as on:
        on.source.send(make(serial=0))
        await on.settle()
        work.hold()
        for serial in range(1, 20):
            on.source.send(make(serial=serial))
        await until(lambda: on.landed)
        await on.listener.stop(drain=0.0)
    assert await ask(path, visits.retry, write=True) == 1
    again = Work()
    async with listening(path, clock, {"work": again}, lane_size=3) as on:
        await until(lambda: len(again.done) == 20)
    assert again.done == [*range(1, 20), 0]
    assert await undone(path) == {"work": 0}


# The end


async def test_stopping_tells_what_is_left_and_keeps_it(path: Path, clock: ManualClock) -> None:
    work, quick = Work(), Work()
    work.hold()
    listener, source = make_listener(path, clock, {"work": work, "quick": quick}, lane_size=2)
    async with listener:
        for serial in range(6):
            source.send(make(serial=serial))
        await until(lambda: len(quick.done) == 6)
        (left,) = await listener.stop(drain=0.0)
    assert (left.handler, left.device) == ("work", device_id(8002))
    # What a full lane left on disk is not told, but it is not lost either.
    assert [one.serial for one in left.happenings if isinstance(one, Event)] == [0, 1, 2][
        : len(left.happenings)
    ]
    assert await undone(path) == {"work": 6, "quick": 0}


async def test_who_is_stopped_before_the_journal_is_open_does_not_wait_for_it(
    path: Path, clock: ManualClock
) -> None:
    async with listening(path, clock, {"work": Work()}):
        pass
    listener, _ = make_listener(path, clock, {"work": Work()})
    with closing(sqlite3.connect(path, isolation_level=None)) as visitor:
        visitor.execute("BEGIN IMMEDIATE")  # as a purge does that writes it anew
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.run())
            await until(lambda: any(one.name == "cti-journal" for one in threading.enumerate()))
            assert await listener.stop() == []


async def test_a_full_journal_ends_the_run_and_loses_nothing_that_was_committed(
    path: Path, clock: ManualClock
) -> None:
    work = Work()
    listener, source = make_listener(
        path, clock, {"work": work}, journal_max_size=300_000, journal_synchronous="normal"
    )

    async def feed() -> None:
        with suppress(NotRunningError):
            for serial in range(5000):
                source.send(make(serial=serial, pad="x" * 500))
                handled = serial + 1
                await until(lambda: len(work.done) == handled or not source.last_signs)  # noqa: B023 - at once

    running = asyncio.get_running_loop().create_task(listener.run())
    await until(lambda: listener.stats().connected)
    await feed()
    async with asyncio.timeout(PATIENCE / 2):  # nobody waits for what will never be on disk
        with pytest.raises(JournalError, match="is full"):
            await running
    kept = await committed(path)
    assert kept == list(range(len(kept)))
    assert len(kept) > 50
    assert set(work.done) <= set(kept)
    again = Work()
    async with listening(path, clock, {"work": again}) as on:
        on.source.send(make(serial=9999))
        await until(lambda: 9999 in again.done)
        (gap,) = on.listener.stats().gaps
        assert gap.reason == "listener_down"
    assert again.done[-1] == 9999
    assert set(work.done) | set(again.done[:-1]) == set(kept)
    assert set(again.redelivered) == set(again.done[:-1])
    assert await undone(path) == {"work": 0}
