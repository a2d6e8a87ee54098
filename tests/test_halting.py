"""A handler that halts: it is not called again, keeps what it is owed, and holds up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tenacity import wait_none

from cti_listener import HaltError, Listener
from cti_listener.event_base import Event
from cti_listener.registration import Retry
from cti_listener.testing import FakeSource
from tests.examples import make
from tests.turns import until


def listener_of(source: FakeSource, path: Path | None) -> Listener:
    return Listener(source, namespace="zhen04.cc", lane_size=2, journal=path)


class Halting:
    """Takes so many, and then no more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: list[int | None] = []
        self.calls = 0

    async def __call__(self, event: Event) -> None:
        self.calls += 1
        if len(self.taken) == self.most:
            raise HaltError("enough")
        self.taken.append(event.serial)


async def test_what_it_is_owed_stays_in_the_journal_in_order(tmp_path: Path) -> None:
    others: list[int | None] = []

    async def run(most: int, *serials: int) -> Halting:
        source, handler = FakeSource(), Halting(most)
        listener = listener_of(source, tmp_path / "journal.db")
        listener.on(order="all", name="sink", overflow="block")(handler)

        @listener.on(order="all", name="other")
        async def other(event: Event) -> None:
            others.append(event.serial)

        async with listener:
            for serial in serials:
                source.send(make(serial=serial, device=8000 + serial % 3))
            # More than a lane holds, and reading never pauses.
            await until(lambda: listener.stats().handlers["other"].handled == len(serials))
            await until(lambda: handler.calls >= min(len(serials), most + 1))
            async with asyncio.timeout(5):  # the drain is far longer: nobody waits for it
                left = await listener.stop(drain=60.0)
            assert {one.handler for one in left} <= {"sink"}
            assert listener.stats().handlers["sink"].halted == (handler.calls > most)
        return handler

    first = await run(3, *range(20))
    assert (first.taken, first.calls) == ([0, 1, 2], 4)
    second = await run(100, 20)
    assert second.taken == list(range(3, 21))
    assert others == list(range(21))


async def test_without_a_journal_it_drops_and_never_pauses_the_reading() -> None:
    source, handler = FakeSource(), Halting(1)
    listener = listener_of(source, None)
    listener.on(name="sink", overflow="block")(handler)
    async with listener:
        for serial in range(50):
            source.send(make(serial=serial))
            await asyncio.sleep(0)
        await until(lambda: handler.calls == 2)
        stats = listener.stats().handlers["sink"]
        assert (stats.handled, stats.waiting, stats.dropped) == (1, 2, 47)
        assert not source.paused
        async with asyncio.timeout(5):
            (left,) = await listener.stop(drain=60.0)
        assert len(left.happenings) == 2
    assert handler.calls == 2


@pytest.mark.parametrize("kept", [True, False])
async def test_what_it_would_not_take_and_was_not_given_is_counted(
    tmp_path: Path, *, kept: bool
) -> None:
    source, go = FakeSource(), asyncio.Event()
    listener = listener_of(source, tmp_path / "journal.db" if kept else None)

    @listener.on(name="sink", overflow="block" if kept else "drop_oldest")
    async def halt(event: Event) -> None:
        await go.wait()
        if event.serial != 1:
            raise HaltError("enough")

    async with listener:
        for serial in range(5):  # 0, 3 and 1, 4 and 2: three lanes, each at its first
            source.send(make(serial=serial, device=8000 + serial % 3))
        await until(lambda: listener.stats().handlers["sink"].waiting == 5)
        await asyncio.sleep(0)
        assert listener.stats().handlers["sink"].withheld == 0
        go.set()
        await until(lambda: listener.stats().handlers["sink"].withheld == 4)
        for serial in range(5, 25):  # more than lanes hold
            source.send(make(serial=serial, device=8000 + serial % 4))
        await until(lambda: listener.stats().handlers["sink"].withheld >= 24)
        stats = listener.stats().handlers["sink"]
        assert (stats.withheld, stats.handled) == (24, 1)
        await listener.stop(drain=0.0)


async def test_a_lane_that_was_full_when_it_halted_no_longer_pauses_the_reading() -> None:
    source, go = FakeSource(), asyncio.Event()
    listener = listener_of(source, None)

    @listener.on(overflow="block")
    async def halt(_: Event) -> None:
        await go.wait()
        raise HaltError("enough")

    async with listener:
        for serial in range(5):
            source.send(make(serial=serial))
        await until(lambda: source.paused)
        go.set()
        await until(lambda: not source.paused)


@pytest.mark.parametrize("retry", [5, wait_none()])
async def test_it_is_not_tried_again(retry: Retry) -> None:
    source, handler = FakeSource(), Halting(0)
    listener = listener_of(source, None)
    listener.on(retry=retry)(handler)
    async with listener:
        source.send(make(serial=1))
        await until(lambda: handler.calls)
    assert handler.calls == 1
