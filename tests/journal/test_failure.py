"""A commit that fails: nothing of it is kept, it is told once, and nothing more is committed."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cti_listener.errors import JournalError
from cti_listener.testing import START, ManualClock
from tests.journal.support import Held, entry, journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def fill(store: Held, until: int) -> None:
    for number in range(until):
        store.add(entry(number, payload={"pad": "x" * 1000}))
        if number % 20 == 19:
            await store.settle()
        if store.failures:
            return


async def test_at_the_size_limit_a_warning_comes_first_and_then_the_commit_fails(
    path: Path,
) -> None:
    clock = ManualClock()
    with capture_logs() as logs:
        async with journal(path, max_size=1_000_000, clock=clock) as store:
            for _ in range(100):
                await fill(store, 40)
                if store.failures:
                    break
                await clock.advance(1)
            committed = store.entries[-1].seq
            (failure,) = store.failures
            store.add(entry(1))
            store.done("work", None, committed)
            await asyncio.sleep(0.05)
            assert store.entries[-1].seq == committed
    assert isinstance(failure, JournalError)
    assert "is full: its disk, or its size limit" in str(failure)
    told = [one["event"] for one in logs if one["log_level"] in {"warning", "error"}]
    assert told == ["journal_nearly_full", "journal_failed"]
    assert path.stat().st_size <= 1_000_000  # noqa: ASYNC240 - a test
    async with journal(path) as store:  # a higher limit
        assert store.opened.last_seq == committed
        assert store.owed == committed


async def test_a_commit_that_fails_half_way_leaves_nothing(path: Path) -> None:
    async with journal(path) as store:
        store.add(entry(1))
        await store.settle()
        spoiler = sqlite3.connect(path)
        spoiler.execute(
            "CREATE TRIGGER spoil AFTER INSERT ON event WHEN new.seq = 300"
            " BEGIN SELECT raise(ABORT, 'spoilt'); END"
        )
        spoiler.close()
        for number in range(400):
            store.add(entry(number))
        store.done("work", "8001@zhen04.cc", 1)
        await store.settle()
        assert len(store.failures) == 1
        assert await store.undone() == [1]
    async with journal(path) as store:
        assert store.opened.last_seq == 1


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_journal_that_is_removed_or_replaced_fails_instead_of_being_written_to_nobody(
    path: Path, *, replaced: bool
) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        store.add(entry(1))
        store.alive(START)
        await store.settle()
        path.unlink()  # noqa: ASYNC240 - a test
        if replaced:
            path.touch()  # noqa: ASYNC240 - as above
        await clock.advance(1)
        store.alive(START)
        while not store.failures:  # noqa: ASYNC110 - told by a thread
            await asyncio.sleep(0.001)
        (failure,) = store.failures
    assert isinstance(failure, JournalError)
    assert "was removed or replaced" in str(failure)


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
@pytest.mark.parametrize("by_link", [False, True])
async def test_a_log_that_is_removed_fails_as_the_journal_does_and_what_it_held_is_kept(
    path: Path, ending: str, *, by_link: bool
) -> None:
    clock = ManualClock()
    named = path
    if by_link:
        named = path.parent / "elsewhere.db"
        async with journal(path):
            pass
        named.symlink_to(path)
    async with journal(named, clock=clock) as store:
        store.add(entry(1))
        store.alive(START)
        await store.settle()
        await asyncio.to_thread(store.read, [1])  # so that the writer's is not the last connection
        path.with_name(f"{path.name}{ending}").unlink()
        store.add(entry(2))
        await store.settle()
        await clock.advance(1)
        store.alive(START)
        await store.settle()
        (failure,) = store.failures
    assert isinstance(failure, JournalError)
    assert f"journal.db{ending} beside it was removed or replaced" in str(failure)
    async with journal(path) as store:
        assert store.opened.last_seq == 2


async def test_what_sqlite_does_with_its_log_is_no_failure(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, ()):
        pass
    async with journal(path, (), clock=clock) as store:
        statements = ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(RESTART)"]
        for statement in [*statements, "SELECT * FROM event"]:
            visitor = sqlite3.connect(path)
            visitor.execute(statement).fetchall()
            visitor.close()
            await clock.advance(1)
            store.alive(clock.now())
            await store.settle()
            store.add(entry(1))
            await store.settle()
        assert not store.failures


async def test_closing_after_a_failure_ends(path: Path) -> None:
    async with asyncio.timeout(5):
        async with journal(path, max_size=150_000) as store:
            await fill(store, 400)
            assert store.failures


async def test_many_short_locks_of_others_are_waited_for(path: Path) -> None:
    async with journal(path) as store:

        def lock(turns: int) -> None:
            other = sqlite3.connect(path, timeout=10, isolation_level=None)
            for _ in range(turns):
                other.execute("BEGIN IMMEDIATE")
                other.execute("UPDATE dead SET retry = retry")
                other.execute("COMMIT")
            other.close()

        task = asyncio.get_running_loop().run_in_executor(None, lock, 50)
        for number in range(200):
            store.add(entry(number))
            await asyncio.sleep(0.001)
        await task
        await store.settle()
        assert not store.failures
        assert len(store.entries) == 200
