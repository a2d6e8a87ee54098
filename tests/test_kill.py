"""`kill -9` at any moment: what was committed is handled, and what is handled twice says so.

A real process (`tests.killed`) listens to a simulated centre, is killed, and started again on the
same journal. Three books are compared: the simulator's of what it sent, the process's own of what
its handlers did, and the journal as each kill left it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cti_listener.journal import gap_rows, visits
from cti_listener.notices import Gap
from cti_listener.simulator import Centre, Ledger, SimulatorServer
from cti_listener.values import EventKey, Payload, routing_key
from tests import killed
from tests.program import ROOT, environment

KILLS = int(os.environ.get("CTI_KILLS", "5"))
"""How often it is killed; more when asked for, since each takes a second."""

Key = tuple[str, str | None, int]
"""What tells an event from others here: its kind, device and serial."""

PATIENCE = 60.0


@dataclass(frozen=True)
class Left:
    """What a kill left in the journal."""

    last_seq: int
    last_at: float
    floors: dict[str, int]
    marks: dict[tuple[str, str], int]
    dead: set[tuple[str, int]]
    gaps: list[Gap]

    def is_done(self, handler: str, key: Key, seq: int) -> bool:
        mark = self.marks.get((handler, key[1] or ""), 0)
        return seq <= max(self.floors.get(handler, 0), mark) or (handler, seq) in self.dead


NOTHING = Left(0, 0.0, {}, {}, set(), [])


@dataclass
class Life:
    """One life of the process, by its own ledger."""

    began: float
    ended: float = 0.0
    left: Left = NOTHING
    handled: list[tuple[str, Key, bool]] = field(default_factory=list)
    told: list[tuple[Key, bool] | tuple[str, float, float]] = field(default_factory=list)
    """What the handler of everything had: events and gaps."""


class Victim:
    """The process, its journal and its ledger, over all its lives."""

    def __init__(self, url: str, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.lives: list[Life] = []
        self._url, self._ledger, self._log = url, folder / "ledger", folder / "log"
        self._begin = 0  # of this life in the ledger
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        arguments = (len(self.lives), self._url, self.path, self._ledger, self._log)
        self._begin = self._ledger.stat().st_size if self._ledger.exists() else 0
        self.lives.append(Life(time.time()))  # noqa: TID251 - it is compared with gaps
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.killed", *map(str, arguments)),
            env=environment(),
            cwd=ROOT,
        )

    async def kill(self) -> None:
        assert self._process.returncode is None, self.log()
        self.lives[-1].ended = time.time()  # noqa: TID251 - as above
        self._process.kill()
        await self._process.wait()
        self.lives[-1].left = await asyncio.to_thread(self._look)

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def log(self) -> str:
        return self._log.read_text()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(condition):
                assert self._process.returncode is None, self.log()
                await asyncio.sleep(0.01)

    async def until_it_writes(self, fact: str) -> None:
        """Wait until it wrote such a fact in this life."""

        def wrote() -> bool:
            if not self._ledger.exists():
                return False
            with self._ledger.open() as file:
                file.seek(self._begin)
                return f'["{fact}"' in file.read()

        await self.until(wrote)

    def asked(self) -> dict[str, Any]:
        """Return what the journal says beside the running listener."""
        with visits.visit(self.path) as db:
            return visits.summary(db, self.path)

    def _look(self) -> Left:
        """Read a copy, so that the next life finds the journal as this one left it."""
        copy = self.path.with_name("copy.db")
        for ending in ("", "-wal"):
            source = self.path.with_name(f"{self.path.name}{ending}")
            target = copy.with_name(f"{copy.name}{ending}")
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)
        if not copy.exists():
            return NOTHING
        with closing(sqlite3.connect(copy)) as db:
            return what_is_left(db)

    def read_ledger(self) -> None:
        """Sort the facts into the lives they are of."""
        whole, _, _torn = self._ledger.read_text().rpartition("\n")
        life = self.lives[0]
        for line in whole.splitlines():
            match json.loads(line):
                case ["life", number]:
                    life = self.lives[number]
                case ["handled", handler, kind, device, serial, redelivered]:
                    key = kind, device, serial
                    life.handled.append((handler, key, redelivered))
                    if handler == "all":
                        life.told.append((key, redelivered))
                case ["gap", reason, since, until]:
                    life.told.append((reason, since, until))
                case other:
                    assert other == ["disconnected"]


def what_is_left(db: sqlite3.Connection) -> Left:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'gap'").fetchone():
        return NOTHING
    last = db.execute("SELECT max(seq), max(received_at) FROM event").fetchone()
    names = dict(db.execute("SELECT id, name FROM handler"))
    marks = db.execute("SELECT handler, device, seq FROM mark").fetchall()
    return Left(
        last_seq=last[0] or 0,
        last_at=last[1] or 0.0,
        floors=dict(db.execute("SELECT name, floor FROM handler")),
        marks={(names[handler], device): seq for handler, device, seq in marks},
        dead={(names[one], seq) for one, seq in db.execute("SELECT handler, seq FROM dead")},
        gaps=[gap_rows.gap_of(*row) for row in db.execute("SELECT id, body FROM gap ORDER BY id")],
    )


def key_of(event: Payload) -> Key:
    return event["eventType"], routing_key(event), event["serial"]


@dataclass
class Load:
    """A busy centre, until it is told to stop."""

    centre: Centre
    over: bool = False

    def __iter__(self) -> Iterator[tuple[float, Payload]]:
        for one in self.centre:
            if self.over:
                return
            yield one


@dataclass
class Scene:
    """A server under load, and the process that listens to it."""

    load: Load
    server: SimulatorServer
    ledger: Ledger
    victim: Victim


@asynccontextmanager
async def scene(folder: Path, seed: int) -> AsyncIterator[Scene]:
    load, ledger = Load(Centre(seed, agents=30, rate=500.0)), Ledger()
    async with SimulatorServer(centre=load, ledger=ledger, seed=seed) as server:
        victim = Victim(server.stomp_url, folder)
        await victim.start()
        try:
            yield Scene(load, server, ledger, victim)
        finally:
            load.over = True
            await victim.end()


async def kill_again_and_again(at: Scene, kills: int, chance: random.Random) -> None:
    """Kill it at moments of chance, once while it is cut off; leave it running."""
    for number in range(kills):
        await at.victim.until_it_writes("life" if chance.random() < 0.3 and number else "handled")
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        if number == kills // 2:
            await at.victim.until_it_writes("handled")
            await at.server.stop()
            await at.victim.until(lambda: at.victim.asked()["openGaps"])  # on disk, that is
        await at.victim.kill()
        await at.server.start()
        await at.victim.start()


async def let_it_finish(at: Scene) -> list[int]:
    """Stop the load, let it do all it owes, dead letters included; return those."""
    victim = at.victim
    await at.server.wait_for_subscribers()
    await victim.until_it_writes("handled")
    at.load.over = True
    await at.server.wait_played()

    def is_idle() -> bool:
        facts = victim.asked()
        return not (facts["openGaps"] or any(one["unfinished"] for one in facts["handlers"]))

    await victim.until(is_idle)
    victim.path.with_name("pardon").touch()

    def retry() -> list[int]:
        with visits.visit(victim.path, write=True) as db:
            seqs = [one["seq"] for one in visits.dead(db)]
            assert visits.retry(db) == len(seqs)
            return seqs

    dead = await asyncio.to_thread(retry)
    # In this order: what is dead no longer is unfinished until it is done.
    await victim.until(lambda: not any(h["dead"] for h in victim.asked()["handlers"]) and is_idle())
    await victim.kill()
    return dead


@dataclass
class Books:
    """The journal's events at the end."""

    seqs: dict[Key, int] = field(default_factory=dict)
    retried: set[Key] = field(default_factory=set)
    owed: dict[Key, set[str]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


def read_journal(path: Path) -> Books:
    books = Books()
    with visits.visit(path) as db:
        for fact in visits.events(db):
            key = key_of(fact["event"])
            if fact["redelivered"]:
                books.retried.add(key)
                assert set(fact["handlers"]) == {"fussy"}
                continue
            assert key not in books.seqs
            books.seqs[key] = fact["seq"]
            books.owed[key] = set(fact["handlers"])
        books.gaps = [gap_rows.gap_of(*row) for row in db.execute("SELECT id, body FROM gap")]
    return books


# What must hold


def check_lives(lives: list[Life], books: Books) -> int:
    """Hold what each life did to the journal it found; return how many were handled twice."""
    handled: set[tuple[str, Key]] = set()
    again = 0
    found = NOTHING
    for life in lives:
        before = {(handler, key) for handler, key, _ in life.handled}
        retries = 0
        for handler, key, redelivered in life.handled:
            seq = books.seqs[key]  # committed, before anybody was given it
            if handler == "fussy" and key in books.retried and life is lives[-1]:
                assert redelivered
                retries += 1
                continue
            assert seq <= life.left.last_seq
            assert not found.is_done(handler, key, seq)
            assert redelivered == (seq <= found.last_seq)
            if (handler, key) in handled:
                assert redelivered
                again += 1
            handled.add((handler, key))
        assert len(life.handled) == len(before)
        assert retries == (len(books.retried) if life is lives[-1] else 0)
        check_order(life, books)
        for key, seq in books.seqs.items():
            for handler in books.owed[key]:
                done = seq <= life.left.last_seq and life.left.is_done(handler, key, seq)
                assert not done or (handler, key) in handled or is_dead(handler, key)
        found = life.left
    for key, handlers in books.owed.items():
        for handler in handlers:
            assert (handler, key) in handled or is_dead(handler, key)
    return again


def is_dead(handler: str, key: Key) -> bool:
    return handler == "fussy" and key[2] % killed.FUSSY_ABOUT == 0


def check_order(life: Life, books: Books) -> None:
    """Each lane goes by the journal's order, and so does each device over all lives."""
    last: dict[tuple[str, str | None], int] = defaultdict(int)
    for handler, key, _ in life.handled:
        if handler == "fussy" and key in books.retried:
            continue
        lane = (handler, None if handler == "all" else key[1])
        assert last[lane] < books.seqs[key]
        last[lane] = books.seqs[key]


def check_first_order(lives: list[Life], books: Books) -> None:
    last: dict[tuple[str, str | None], int] = defaultdict(int)
    seen: set[tuple[str, Key]] = set()
    for life in lives:
        for handler, key, _ in life.handled:
            if (handler, key) in seen or (handler == "fussy" and key in books.retried):
                continue
            seen.add((handler, key))
            assert last[handler, key[1]] < books.seqs[key]
            last[handler, key[1]] = books.seqs[key]


def check_downtimes(lives: list[Life], gaps: list[Gap]) -> None:
    """Each kill has its gap, kept, and told before anything new."""
    down = [
        (gap.since.timestamp(), gap.until.timestamp())
        for gap in gaps
        if gap.reason == "listener_down" and gap.until is not None
    ]
    for life, following in pairwise(lives):
        left = life.left
        if not left.last_seq:
            continue  # nothing had come yet, and nobody knows that it ran
        # One killed behind its subscription and before its first event was there till then.
        had_events = left.last_at >= life.began
        latest = min(life.ended, left.last_at + 1.0) if had_events else life.ended
        covered = any(since <= latest and until >= following.began for since, until in down)
        assert covered, (life.began, life.ended, left.last_at, following.began, down)
        for one in following.told:
            if len(one) == 3:
                reason, since, until = one
                if reason == "listener_down" and since <= latest and until >= following.began:
                    break
            else:
                assert one[1], "something new came before the gap was told"


def check_against_the_server(ledger: Ledger, books: Books) -> int:
    """Hold what was sent and is not in the journal to the gaps; return how much that is."""
    by_session: dict[int, list[tuple[Key, float]]] = defaultdict(list)
    for sent in ledger.sent:
        by_session[sent.session].append((key_of(sent.event), sent.at.timestamp()))
    lost, last = 0, None
    for _, sents in sorted(by_session.items()):
        kept = [key in books.seqs for key, _ in sents]
        assert kept == sorted(kept, reverse=True)  # what is lost is the end of it
        if any(kept):
            last = sents[sum(kept) - 1][0]
        for _, at in sents[sum(kept) :]:
            lost += 1
            assert any(names(gap, last, at) for gap in books.gaps)
    return lost


def names(gap: Gap, last: Key | None, at: float) -> bool:
    """Tell whether a gap is behind this event and around that time."""
    assert gap.until is not None
    around = gap.since.timestamp() <= at <= gap.until.timestamp()
    return around and short(gap.last_before) == last


def short(key: EventKey | None) -> Key | None:
    return None if key is None else (key.event_type, key.device, key.serial)


def audit(at: Scene, kills: int, dead: list[int]) -> str:
    """Hold the three books to each other; return the figures."""
    victim = at.victim
    victim.read_ledger()
    books = read_journal(victim.path)
    again = check_lives(victim.lives, books)
    check_first_order(victim.lives, books)
    check_downtimes(victim.lives, books.gaps)
    check_cut_off(victim.lives[kills // 2 :], books.gaps)
    lost = check_against_the_server(at.ledger, books)
    assert {books.seqs[key] for key in books.retried} == set(dead)
    assert books.retried
    spilled = victim.log().count("lane_spilled")
    assert spilled
    handled = sum(len(one.handled) for one in victim.lives)
    return (
        f"{kills} kills, {len(books.seqs)} events committed, {handled} handled, {again} of them"
        f" again, {len(dead)} dead letters, {spilled} lanes spilled, {len(books.gaps)} gaps,"
        f" {lost} sent and in a gap"
    )


def check_cut_off(lives: list[Life], gaps: list[Gap]) -> None:
    """A gap that a kill left open is closed by the next life."""
    open_then = [gap for gap in lives[0].left.gaps if gap.until is None]
    assert [gap.reason for gap in open_then] == ["disconnected"]
    (closed,) = [gap for gap in gaps if gap.id == open_then[0].id]
    assert closed.until is not None
    assert closed.until.timestamp() > lives[1].began


@pytest.mark.slow
@pytest.mark.timeout(180 + 15 * KILLS)
async def test_killed_at_any_moment_it_loses_nothing_and_says_what_it_missed(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure by
    async with scene(tmp_path, seed) as at:
        await kill_again_and_again(at, KILLS, random.Random(seed))
        dead = await let_it_finish(at)
    print(await asyncio.to_thread(audit, at, KILLS, dead))  # noqa: T201 - the figures
