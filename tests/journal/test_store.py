"""Append, commit, done: what is on disk, in which order, and what is still to do."""

from __future__ import annotations

import asyncio
import sqlite3
from array import array
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cti_listener.clock import FOREVER
from cti_listener.errors import ConfigurationError, NotRunningError
from cti_listener.journal import NO_DEVICE, Entry, Journal, JournalStats
from cti_listener.journal.store import MANY
from cti_listener.notices import Gap
from cti_listener.testing import START, ManualClock
from cti_listener.values import EventKey
from tests.journal.support import Held, entry, journal, retry_all
from tests.turns import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_what_was_appended_is_handed_back_committed_in_order(path: Path) -> None:
    async with journal(path) as store:
        sent = [entry(number) for number in range(3000)]  # more than one statement takes
        for one in sent:
            store.add(one)
        await store.settle()
        assert store.entries == sent
        assert [one.seq for one in sent] == list(range(1, 3001))
        assert len(store.groups) == 1  # all that one turn of the loop brought
        assert store.stats().committed == 3000
        assert store.stats().pending == 0


async def test_what_comes_during_a_commit_goes_with_the_next(path: Path) -> None:
    async with journal(path) as store:
        for number in range(300):
            store.add(entry(number))
            if number % 3 == 0:
                await asyncio.sleep(0)
        await store.settle()
        assert [one.seq for one in store.entries] == list(range(1, 301))
        assert 1 < len(store.groups) < 200


async def test_under_load_a_group_waits_for_more_and_a_lone_event_never(path: Path) -> None:
    async with journal(path, pause=3600) as store:
        for number in range(3):
            store.add(entry(number))
            await store.settle()
        for number in range(MANY):
            store.add(entry(number))
        await until(lambda: len(store.groups) == 4)
        for number in range(5):
            store.add(entry(number))
            await asyncio.sleep(0.001)
        assert store.stats().pending == 5
    assert [len(group) for group in store.groups] == [1, 1, 1, MANY, 5]  # closing waits for nothing


async def test_an_entry_comes_back_from_disk_as_it_was(path: Path) -> None:
    payload = {"agentName": "王\ud800", "big": 10**30, "devices": None, "n": {"a": [1.5, True]}}
    at = START + timedelta(microseconds=123_457)
    sent = entry(1, payload=payload, at=at, device=None, call=None)
    async with journal(path) as store:
        store.add(sent)
        await store.settle()
        (found,) = await asyncio.to_thread(store.read, [1])
    assert found == sent.as_found()


async def test_a_new_journal_knows_nothing(path: Path) -> None:
    async with journal(path) as store:
        known = store.opened
    assert (known.last_sign, known.last_seq, known.last_gap) == (None, 0, 0)
    assert (known.unfinished, list(known.seen), known.open_gaps) == ({"work": {}}, [], ())


async def test_done_is_a_mark_for_each_handler_and_device(path: Path) -> None:
    async with journal(path, ["work", "other"]) as store:
        for number in range(12):
            store.add(entry(number, device=f"d{number % 2}", owed=("work", "other")))
        await store.settle()
        store.done("work", "d0", 7)
        store.done("work", "d1", 4)
        await store.settle()
        assert await store.undone() == [6, 8, 9, 10, 11, 12]
        assert await store.undone(device="d0") == [9, 11]
        assert await store.undone("other") == list(range(1, 13))


async def test_the_lane_of_all_devices_and_that_of_none_are_two(path: Path) -> None:
    async with journal(path) as store:
        for number in range(6):
            store.add(entry(number, device=None if number % 2 else "d"))
        await store.settle()
        store.done("work", NO_DEVICE, 4)
        await store.settle()
        assert await store.undone() == [1, 3, 5, 6]
    async with journal(path) as store:
        assert store.opened.unfinished == {
            "work": {"d": array("q", [1, 3, 5]), NO_DEVICE: array("q", [6])}
        }
        store.done("work", None, 5)
        await store.settle()
        assert await store.undone() == [6]


async def test_what_was_not_done_is_there_after_a_restart_and_marked(path: Path) -> None:
    async with journal(path) as store:
        for number in range(10):
            store.add(entry(number, device="d"))
        await store.settle()
        store.done("work", "d", 4)
    async with journal(path) as store:
        assert store.owed == 6
        assert store.opened.last_seq == 10
        assert len(store.opened.seen) == 10
        assert store.opened.seen[-1] == entry(9, device="d").hash
        store.add(entry(10, device="d"))
        await store.settle()
        found = await asyncio.to_thread(store.read, await store.undone())
    assert [(one.seq, one.redelivered) for one in found if isinstance(one, Entry)] == [
        *((seq, True) for seq in range(5, 11)),
        (11, False),
    ]


async def test_a_new_handler_starts_from_now_and_an_absent_one_is_told(path: Path) -> None:
    async with journal(path, ["old"]) as store:
        store.add(entry(1, owed=("old",)))
    async with journal(path, ["new"]) as store:
        assert store.owed == 0
        assert store.opened.absent == {"old": 1}
        store.add(entry(2, owed=("new", "old")))
        await store.settle()
        assert await store.undone("new") == [2]
        assert await store.undone("old") == [1, 2]


async def test_a_handler_registered_while_running_is_taken(path: Path) -> None:
    async with journal(path, []) as store:
        store.add(entry(1, owed=()))
        store.add(entry(2, owed=("late",)))
        await store.settle()
        assert await store.undone("late") == [2]


async def test_closing_commits_what_was_appended_and_done(path: Path) -> None:
    store = Held(path)
    await store.open(["work"])
    store.add(entry(1, device="d"))
    store.add(entry(2, device="d"))
    store.done("work", "d", 1)
    await store.close()
    assert [one.seq for one in store.entries] == [1, 2]
    store.add(entry(3, device="d"))  # too late: nothing becomes of it
    store.done("work", "d", 2)
    await store.close()
    async with journal(path) as again:
        assert await again.undone() == [2]


async def test_a_journal_is_opened_once(path: Path) -> None:
    async with journal(path) as store:
        with pytest.raises(NotRunningError):
            await store.open(["work"])


async def test_limits_that_cannot_be_are_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="journal_retention: must be more than 0"):
        Journal(path, retention=0, clock=ManualClock())
    with pytest.raises(ConfigurationError, match="journal_max_size"):
        Journal(path, max_size=-1, clock=ManualClock())


async def test_the_last_sign_of_life_is_kept(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        store.alive(START)
        await store.settle()
        commits = store.stats().commits
        for tenth in range(10):
            store.alive(START + timedelta(seconds=tenth / 10))
        await store.settle()
        assert store.stats().commits == commits  # at most one a second of its own
    await clock.advance(1)
    async with journal(path, clock=clock) as store:
        assert store.opened.last_sign == START + timedelta(seconds=0.9)
        store.add(entry(1, at=START + timedelta(seconds=5)))
        store.alive(START)  # no later than what is known
    async with journal(path, clock=clock) as store:
        # An event is none: others that were sent before it may have lain in the socket yet.
        assert store.opened.last_sign == START + timedelta(seconds=0.9)


async def test_a_sign_of_life_that_has_yet_to_come_says_that_the_clock_was_set_back(
    path: Path,
) -> None:
    async with journal(path, clock=ManualClock(START + timedelta(seconds=60))) as store:
        store.alive(START + timedelta(seconds=60))
        store.queues_empty(["empty then"], START + timedelta(seconds=50))
        store.queues_empty(["empty long before"], START - timedelta(seconds=100))
        store.queues_empty(["so for ever"], FOREVER)
        later = START + timedelta(seconds=40)
        store.gap(Gap(at=later, id=1, since=later, until=None, reason="disconnected"))
    with capture_logs() as lines:
        async with journal(path, clock=ManualClock(START)) as store:
            assert store.opened.last_sign == START - timedelta(seconds=60)
            assert store.opened.queues_emptied == {"so for ever": FOREVER}
            (gap,) = store.opened.open_gaps
            assert gap.since == START - timedelta(seconds=40)
            store.alive(START)
    assert [one["seconds"] for one in lines if one["event"] == "clock_set_back"] == [60.0]
    async with journal(path, clock=ManualClock(START)) as store:
        assert store.opened.last_sign == START


async def test_a_retried_letter_is_not_the_last_that_came(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        store.add(entry(1))
        await store.settle()
        store.dead("work", 1, "boom")
        await clock.advance(60)
        last = entry(2, at=clock.now())
        store.add(last)
    await asyncio.to_thread(retry_all, path)
    async with journal(path, clock=clock) as store:
        assert store.opened.last_seq == 3
        told = [(key.serial, at) for key, at in store.opened.latest]
        assert told == [(1, last.received_at - timedelta(seconds=60)), (2, last.received_at)]


async def test_gaps_are_kept_and_updated_by_id(path: Path) -> None:
    last = EventKey("zhen04.cc", "csta", "8002@zhen04.cc", 7, "delivered", "2018.04.10", "c")
    gap = Gap(
        at=START,
        id=3,
        since=START,
        until=None,
        reason="refused",
        devices=frozenset({"8002@zhen04.cc"}),
        destination="/topic/x",
        last_before=last,
    )
    async with journal(path) as store:
        store.gap(gap)
    async with journal(path) as store:
        assert store.opened.open_gaps == (gap,)
        assert store.opened.last_gap == 3
        store.gap(Gap(at=START, id=3, since=START, until=START, reason="refused"))
        store.gap(Gap(at=START, id=4, since=START, until=START, reason="disconnected"))
    async with journal(path) as store:
        assert store.opened.open_gaps == ()
        assert store.opened.last_gap == 4


async def test_gaps_that_had_no_event_since_are_told_and_no_others(path: Path) -> None:
    key = EventKey("zhen04.cc", "csta", "8002@zhen04.cc", 7, "delivered", "2018.04.10", "c")

    def gap(number: int, end: float | None, first: EventKey | None = None) -> Gap:
        until = None if end is None else START + timedelta(seconds=end)
        return Gap(
            at=START, id=number, since=START, until=until, reason="refused", first_after=first
        )

    lacking = gap(5, 5), gap(1, 6), gap(6, 6)  # the first was open for long
    async with journal(path) as store:
        assert store.opened.awaiting == ()
        for one in (*lacking, gap(2, 2), gap(3, 3, key), gap(4, None)):
            store.gap(one)
    async with journal(path) as store:
        assert store.opened.awaiting == lacking
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE gap SET body = '{' WHERE id = 1")
    async with journal(path) as store:
        assert store.opened.awaiting == lacking[2:]  # nothing ends by one that cannot be read
        store.add(entry(1, at=START + timedelta(hours=1)))
    async with journal(path) as store:
        assert store.opened.awaiting == ()  # what came behind them a purge must have erased


async def test_when_a_brokers_queues_were_empty_is_kept_until_it_is_to_be_forgotten(
    path: Path,
) -> None:
    async with journal(path) as store:
        assert store.opened.queues_emptied == {}
        store.queues_empty(["a", "b"], START)
        await store.settle()
        store.queues_empty(["b"], None)
        store.queues_empty(["c"], START)
    async with journal(path) as store:
        assert store.opened.queues_emptied == {"a": START, "c": START}


async def test_where_an_agent_sits_is_kept_until_it_is_to_be_forgotten(path: Path) -> None:
    async with journal(path) as store:
        assert store.opened.seats == {}
        store.seated("5001", ("8001", "2026-01-05 12:00:00"))
        store.seated("5002", ("8002", ""))
        await store.settle()
        store.seated("5002", None)
        store.seated("\ud800", None)
        store.seated("5003", ("\ud800", ""))  # no UTF-8
    async with journal(path) as store:
        assert store.opened.seats == {
            "5001": ("8001", "2026-01-05 12:00:00"),
            "5003": ("\ud800", ""),
        }


async def test_a_dead_letter_counts_as_done_with_all_before_it(path: Path) -> None:
    async with journal(path) as store:
        for number in range(4):
            store.add(entry(number, device="d"))
        await store.settle()
        store.dead("work", 2, "Traceback: boom")
        await store.settle()
        assert await store.undone() == [3, 4]
    async with journal(path) as store:
        assert await store.undone() == [3, 4]


async def test_stats_tell_the_oldest_undone_and_the_size(path: Path) -> None:
    clock = ManualClock()
    async with journal(path, clock=clock) as store:
        for number in range(3):
            at = START + timedelta(seconds=number)
            store.add(entry(number, device="d", at=at))
        await store.settle()
        store.done("work", "d", 1)
        stats = await looked(store, clock)
        assert stats.oldest_undone == START + timedelta(seconds=1)
        assert stats.oldest_undone_by == "work"
        assert stats.bytes > 4096
        store.done("work", "d", 3)
        stats = await looked(store, clock)
        assert (stats.oldest_undone, stats.oldest_undone_by) == (None, None)
        assert repr(store) == f"<Journal {path} open, 3 committed>"


async def looked(store: Held, clock: ManualClock) -> JournalStats:
    """Return the counts as they are when upkeep has looked once more."""
    await store.settle()
    await clock.advance(1)
    store.poll_retries()
    await store.settle()
    return store.stats()
