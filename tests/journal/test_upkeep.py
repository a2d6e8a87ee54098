"""Upkeep: what is done and over goes, what is undone or of a living call stays."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cti_listener.journal import OURS
from cti_listener.testing import START, ManualClock
from tests.journal.support import Held, entry, journal, retry_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def kept(store: Held, clock: ManualClock, rounds: int = 30) -> list[int]:
    """Let upkeep come round; return the rows that are left."""
    for _ in range(rounds):
        await clock.advance(2)
        store.poll_retries()
        await store.settle()
    with closing(sqlite3.connect(store.path)) as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM event ORDER BY seq")]


async def add(store: Held, clock: ManualClock, numbers: range, **given: object) -> None:
    for number in numbers:
        store.add(entry(number, at=clock.now(), **given))
    await store.settle()


async def bury(store: Held, seqs: range) -> None:
    for seq in seqs:
        store.dead("work", seq, "boom")
    await store.settle()


async def test_done_rows_go_after_the_retention_and_undone_ones_never(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, retention=100, clock=clock) as store:
        await add(store, clock, range(1000), device="d")
        await add(store, clock, range(1000, 1010), device="e")
        store.done("work", "d", 1000)
        await store.settle()
        assert len(await kept(store, clock)) == 1010  # 60 s: all within the retention
        await clock.advance(100)
        assert await kept(store, clock) == list(range(1001, 1011))
        store.done("work", None, 1010)
        assert await kept(store, clock, 60) == []
        await add(store, clock, range(1010, 1011))
        assert store.entries[-1].seq == 1011  # a number never comes again


async def test_a_calls_rows_stay_while_it_lives(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, retention=100, clock=clock) as store:
        await add(store, clock, range(3), call="long", device="d")
        await add(store, clock, range(3, 6), call="short", device="d")
        await add(store, clock, range(6, 9), call=None, device="d")
        await clock.advance(90)
        await add(store, clock, range(9, 10), call="long", device="d")
        store.done("work", None, 10)
        assert await kept(store, clock) == [1, 2, 3, 10]
        assert await kept(store, clock, 60) == []


async def test_what_nobody_wants_is_remembered_as_long(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, retention=100, clock=clock) as store:
        await add(store, clock, range(5), owed=())
    async with journal(path, retention=100, clock=clock) as store:
        assert len(store.opened.seen) == 5
        assert store.owed == 0
        await clock.advance(200)
        assert await kept(store, clock) == []


async def test_what_came_too_long_before_is_not_told_as_seen(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        await add(store, clock, range(5))
        await clock.advance(150)
        await add(store, clock, range(5, 8))
    await clock.advance(1000)  # it counts from the last event
    async with journal(path, remember=100, clock=clock) as store:
        assert list(store.opened.seen) == [entry(number).hash for number in range(5, 8)]


async def test_only_so_many_are_told_as_seen_and_these_are_the_last(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        await add(store, clock, range(8))
        for number in range(5):  # notices
            store.add(replace(entry(number, at=clock.now()), feed=OURS))
        await store.settle()
    async with journal(path, remember_most=3, clock=clock) as store:
        assert list(store.opened.seen) == [entry(number).hash for number in range(5, 8)]


async def test_letters_brought_back_take_no_younger_row_with_them(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, retention=100, clock=clock) as store:
        await add(store, clock, range(20), call=None)
        await bury(store, range(1, 21))
        await clock.advance(150)
        await add(store, clock, range(20, 30), call=None)
        store.done("work", None, 30)
        await asyncio.to_thread(retry_all, path)
        assert await kept(store, clock) == list(range(21, 51))
        await clock.advance(100)
        assert await kept(store, clock) == list(range(31, 51))  # undone, however old
        store.done("work", None, 50)
        assert await kept(store, clock) == []  # though nothing younger stands behind them


async def test_letters_brought_back_hide_nothing_that_came_lately(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        await add(store, clock, range(20))
        await bury(store, range(1, 21))
        await clock.advance(150)
        await add(store, clock, range(20, 25))
    await asyncio.to_thread(retry_all, path)
    async with journal(path, remember=100, clock=clock) as store:
        lately, brought_back = range(20, 25), range(20)
        assert list(store.opened.seen) == [entry(n).hash for n in (*lately, *brought_back)]


async def test_letters_brought_back_are_told_as_seen_where_nothing_else_is_left(
    path: Path,
) -> None:
    clock = ManualClock()
    async with journal(path, retention=100, clock=clock) as store:
        await add(store, clock, range(3), call=None)
        await bury(store, range(1, 4))
        await clock.advance(150)
        assert await kept(store, clock) == []
    await asyncio.to_thread(retry_all, path)
    async with journal(path, clock=clock) as store:
        assert list(store.opened.seen) == [entry(number, call=None).hash for number in range(3)]


def marked(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT device, seq FROM mark"))


async def test_a_mark_goes_once_all_before_it_is_done(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        for number in range(5000):  # more than a step looks at
            store.add(entry(number, device=f"d{number}", owed=("work",)))
        await store.settle()
        for number in range(5000):
            if number != 4000:
                store.done("work", f"d{number}", number + 1)
        await store.settle()
        assert len(marked(path)) == 4999
        await kept(store, clock, 60)
        assert len(marked(path)) == 999  # d4000 has yet to do its event, and the floor waits
        assert await store.undone() == [4001]
        store.done("work", "d4000", 4001)
        await kept(store, clock, 60)
        assert marked(path) == {}
        assert await store.undone() == []
    async with journal(path, clock=clock) as store:
        assert store.owed == 0


async def test_marks_of_a_handler_that_is_gone_go_as_well(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, ["old"], clock=clock) as store:
        await add(store, clock, range(3), device="d", owed=("old",))
        store.done("old", "d", 2)
    async with journal(path, clock=clock) as store:
        await kept(store, clock, 60)
        assert marked(path) == {}
    async with journal(path, ["old"], clock=clock) as store:
        assert await store.undone("old") == [3]


async def test_what_was_deleted_cannot_be_found_in_the_file(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, retention=10, clock=clock) as store:
        await add(store, clock, range(200), payload={"callingDevice": "13800138000"}, owed=())
        await clock.advance(20)
        assert await kept(store, clock) == []
    assert b"13800138000" not in path.read_bytes()  # noqa: ASYNC240 - a test


async def test_under_load_deleting_keeps_up_in_small_steps(path: Path) -> None:
    clock = ManualClock(START + timedelta(days=1))
    async with journal(path, retention=10, clock=clock) as store:
        for turn in range(40):
            await add(store, clock, range(turn * 500, turn * 500 + 500), call=None)
            store.done("work", None, turn * 500 + 500)
            await clock.advance(1)
        rows = await kept(store, clock, 0)
        assert 5000 <= len(rows) < 8000
