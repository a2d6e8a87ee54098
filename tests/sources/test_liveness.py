"""When the last sign of life came, by any clock and while bytes wait unread; and who is dead."""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta

import pytest

from cti_listener.sources.liveness import Liveness
from cti_listener.sources.options import ConnectionOptions
from cti_listener.testing import START, ManualClock


class SteppedClock(ManualClock):
    """A clock whose wall is set apart from the seconds it counts: by NTP, or a suspend.

    Its seconds also go by while the loop is held up, when nobody who sleeps is woken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = timedelta()
        self.held_up = 0.0

    def now(self) -> datetime:
        return super().now() + self.step + timedelta(seconds=self.held_up)

    def monotonic(self) -> float:
        return super().monotonic() + self.held_up


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def liveness(clock: SteppedClock) -> Liveness:
    return Liveness(ConnectionOptions(), clock)


async def test_the_last_sign_is_when_bytes_came_last(
    clock: SteppedClock, liveness: Liveness
) -> None:
    assert liveness.last_sign == START
    await clock.advance(10)
    liveness.reading()
    liveness.heard()
    await clock.advance(5)
    assert liveness.last_sign == START + timedelta(seconds=10)


async def test_the_last_sign_is_from_before_the_read_that_brought_it(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.reading()
    await clock.advance(1)  # others may come meanwhile
    liveness.heard()
    assert liveness.last_sign == START + timedelta(seconds=10)
    assert liveness.silence == 0.0


async def test_what_waits_unread_may_have_come_before_the_bytes_that_were_read(
    clock: SteppedClock, liveness: Liveness
) -> None:
    liveness.reading()
    liveness.heard()
    for _ in range(3):
        await clock.advance(10)
        liveness.reading()
        liveness.heard(more=True)
        assert liveness.last_sign == START
    for sign in (0, 50):  # a read that finds little in the midst of a burst says nothing yet
        await clock.advance(10)
        liveness.reading()
        liveness.heard()
        assert liveness.last_sign == START + timedelta(seconds=sign)


@pytest.mark.parametrize("more", [False, True])
async def test_what_was_read_and_not_taken_came_after_the_read_before(
    clock: SteppedClock, liveness: Liveness, *, more: bool
) -> None:
    await clock.advance(10)
    liveness.reading()
    liveness.heard()
    await clock.advance(10)
    liveness.reading()
    liveness.heard(more=more)
    liveness.not_taken()
    assert liveness.last_sign == START + timedelta(seconds=10)


async def test_bytes_that_were_read_late_came_when_the_system_says(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.reading()
    liveness.heard()
    liveness.last_came(3.0)
    assert liveness.last_sign == START + timedelta(seconds=7)
    await clock.advance(10)
    liveness.last_came(0.0)  # it does not say
    liveness.last_came(11.0)
    assert liveness.last_sign == START + timedelta(seconds=7)


async def test_hours_that_only_the_wall_clock_saw_come_after_the_last_sign(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.reading()
    liveness.heard()
    clock.step = timedelta(hours=3)
    await clock.advance(5)
    assert liveness.last_sign == START + timedelta(seconds=10)


async def test_a_wall_clock_set_back_leaves_no_sign_in_the_future(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.reading()
    liveness.heard()
    clock.step = timedelta(hours=-3)
    await clock.advance(5)
    assert liveness.last_sign == clock.now() - timedelta(seconds=5)


# Who is dead

TICK = 1.0
"""How far ticks are apart by default, in seconds."""


async def tick(clock: SteppedClock, liveness: Liveness, *, held_up: float = 0.0) -> None:
    """Let one tick go by, in which the loop is held up for so long; ping if it is due."""
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(liveness.tick())
        await asyncio.sleep(0)
        clock.held_up += held_up
        await clock.advance(TICK)
        assert ticking.done()
    if liveness.ping_due:
        liveness.asked()


async def ticks_to_death(clock: SteppedClock, liveness: Liveness, *, held_up: float = 0.0) -> int:
    """Return after how many ticks, in each of which the loop is held up, the peer is dead."""
    for number in range(1, 100):
        await tick(clock, liveness, held_up=held_up)
        if await liveness.is_dead():
            return number
    return 0


async def test_a_peer_is_dead_after_the_silence_limit(
    clock: SteppedClock, liveness: Liveness
) -> None:
    assert await ticks_to_death(clock, liveness) == 12


async def test_short_blocks_in_a_row_are_no_more_silence_than_a_long_one(
    clock: SteppedClock, liveness: Liveness
) -> None:
    assert await ticks_to_death(clock, liveness, held_up=0.4) == 12


@pytest.mark.parametrize("silent_for", [0, 4, 11])
async def test_a_block_longer_than_the_silence_limit_is_no_silence_of_the_peers(
    clock: SteppedClock, liveness: Liveness, silent_for: int
) -> None:
    for _ in range(silent_for):
        await tick(clock, liveness)
    await tick(clock, liveness, held_up=30.0)
    assert liveness.silence == pytest.approx(silent_for + TICK)
    # What it did not say before is not forgotten.
    assert await ticks_to_death(clock, liveness) == (11 - silent_for or 1)


async def test_a_peer_heard_after_a_block_has_no_time_left_over_from_it(
    clock: SteppedClock, liveness: Liveness
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(liveness.tick())
        await asyncio.sleep(0)
        clock.held_up += 30.0
        liveness.heard()  # what waited in the socket is read in the turn that ends the tick
        await clock.advance(TICK)
    assert liveness.silence >= 0
    assert await ticks_to_death(clock, liveness) == 12


async def test_a_block_between_two_ticks_or_before_the_first_is_excused(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(3)  # the opening handshake
    liveness.excuse()
    clock.held_up += 30.0
    await tick(clock, liveness)
    assert liveness.silence == pytest.approx(TICK)
    clock.held_up += 30.0
    await tick(clock, liveness)
    assert liveness.silence == pytest.approx(2 * TICK)


async def test_a_peer_that_was_not_asked_is_not_dead(clock: SteppedClock) -> None:
    options = ConnectionOptions(ping_interval=11.5, silence_limit=12)
    liveness = Liveness(options, clock)
    for _ in range(11):
        await tick(clock, liveness)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(liveness.tick())
        await clock.advance(TICK)
    assert not await liveness.is_dead()
    liveness.asked()
    assert await liveness.is_dead()


async def test_without_pings_silence_alone_is_judged(clock: SteppedClock) -> None:
    liveness = Liveness(ConnectionOptions(ping_interval=0, silence_limit=12), clock)
    assert await ticks_to_death(clock, liveness) == 12


async def test_what_waits_is_read_before_the_peer_is_judged(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(12)
    liveness.asked()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, liveness.heard)
        theirs.send(b"while the loop was held up")
        assert not await liveness.is_dead()
        loop.remove_reader(ours)
