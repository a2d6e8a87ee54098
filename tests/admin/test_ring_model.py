"""Readers of every speed beside a small ring, with chance for what happens and when.

What each was sent, and what it was told it lost, is held against all that was handed over. The
journal is a list here, and its thread some turns of the loop, so that a seed always plays alike.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from cti_listener import Event, Listener
from cti_listener.admin.ring import Ring
from cti_listener.admin.showing import Shown
from cti_listener.admin.stream import Filter, Place, Stream
from cti_listener.event_base import Delivery
from cti_listener.events import event_of
from cti_listener.journal.reader import Kept
from cti_listener.notices import FeedsApart
from cti_listener.testing import FakeSource
from tests.admin.support import PATIENCE
from tests.examples import NAMESPACE, make

NOW: Final = datetime(2026, 1, 5, tzinfo=UTC)

IDENTITY: Final = "0123456789ab"

SPEEDS: Final = ((0,), (0, 1), (1, 5), (5, 30), (30, 100))
"""How many turns a reader takes over what it is sent."""

STAYS: Final = (1, 3, 40, 200, 10**9)
"""After how much it leaves."""

STEPS: Final = 100

SEEDS: Final = 12

SMALL: Final = {
    "ring.SIZE": 32,
    "ring._MASK": 31,
    "ring.ROOM": 24,
    "ring.TICK": 0.0,
    "stream.TICK": 0.0,
    "stream.AT_ONCE": 5,
    "stream.CHUNK": 7,
}


class Said(NamedTuple):
    """What a reader was sent: `seq` is 0 where it has no place."""

    name: str
    seq: int
    data: dict[str, Any]

    @property
    def number(self) -> int:
        """Tell it from all others that were handed over; a notice is below 0."""
        return self.data["serial"] if "serial" in self.data else -int(self.data["share"])


class World:
    """A listener's half of it: commits and hands over, in bursts.

    Attributes:
        rows: What is in the journal.
        places: Of all events that ever were there.
        told: The numbers of what was handed over, in order.
        done: No more will be.
    """

    def __init__(self, seed: int, *, journal: bool) -> None:
        self.chance = random.Random(seed)
        path = Path("never-opened.db") if journal else None
        self.listener = Listener(FakeSource(), namespace=NAMESPACE, journal=path)
        self.ring = Ring(self.listener, Shown(None))
        self.rows: list[Kept] = []
        self.places: list[int] = []
        self.told: list[int] = []
        self.done = False
        self._commits = self.listener._engine._commits  # noqa: SLF001 - its half is played here
        if self._commits is not None:
            self._commits.identity = IDENTITY
        self._catching_up = asyncio.Lock()
        self._on_disk: list[tuple[int, int]] = []  # place and number; 0: it is no event
        self._seq = self._events = self._notices = 0

    async def run(self) -> None:
        """Do what chance says, then hand the rest over and end."""
        for _ in range(STEPS):
            if self.chance.random() < 0.5:
                self._commit(self.chance.choice((1, 3, 10, 60)))
            if self._commits is None or self.chance.random() < 0.3:  # else the disk is ahead
                self._hand_over(self.chance.choice((1, 5, 30, 100)))
            if self.chance.random() < 0.2:
                self._tell(self.chance.choice((1, 1, 2, 12, 50)))
            if self.chance.random() < 0.1:
                self._erase()
            await self.turns((0, 0, 1, 3, 20))
        self._hand_over(len(self._on_disk))
        await self.turns((0, 20))
        self.done = self.listener._engine.stopping = True  # noqa: SLF001 - as above
        self.listener._engine._end_taps(None)  # noqa: SLF001 - as above

    async def turns(self, some: tuple[int, ...]) -> None:
        for _ in range(self.chance.choice(some)):
            await asyncio.sleep(0)

    def _commit(self, count: int) -> None:
        for _ in range(count):
            self._seq += 1
            ours = self._commits is not None and self.chance.random() < 0.15
            self._events += not ours
            event = {} if ours else make(serial=self._events)
            self.rows.append(Kept(self._seq, None, NOW, ours, event))
            self.places += [] if ours else [self._seq]
            self._on_disk.append((self._seq, 0 if ours else self._events))

    def _hand_over(self, count: int) -> None:
        give = self.listener._handover.give  # noqa: SLF001 - as above
        for seq, number in self._on_disk[:count]:
            if self._commits is not None:
                self._commits.given = seq
            if number:
                self.told.append(number)
                give(model(number), None, (), 0 if self._commits is None else seq)
        del self._on_disk[:count]

    def _tell(self, count: int) -> None:
        for _ in range(count):
            self._notices += 1
            self.told.append(-self._notices)
            notice = FeedsApart(at=NOW, share=self._notices)
            self.listener._handover.tell(notice)  # noqa: SLF001 - as above

    def _erase(self) -> None:
        """Take some rows out, the newest of those that were handed over included."""
        given = self.listener.given
        gone = range(given - self.chance.choice((0, 3, 20)), given + 1)
        self.rows = [one for one in self.rows if one.seq not in gone]

    async def read(self, after: int | None) -> tuple[int, list[Said]]:
        """Return from where on a reader was there, and what it was sent until it had enough."""
        if self.done:
            return len(self.told), []
        place = None if after is None else Place(IDENTITY, after)
        speed, stays = self.chance.choice(SPEEDS), self.chance.choice(STAYS)
        start, said, shown = len(self.told), list[Said](), Shown(None)
        self.ring.enter()
        try:
            stream = Stream(
                self.ring,
                self.listener,
                shown,
                wanted=Filter(),
                after=place,
                catching_up=self._catching_up,
            )
            async for chunk in stream.chunks():
                said += parsed(chunk)
                if len(said) >= stays:
                    break
                await self.turns(speed)
        finally:
            self.ring.leave()
        return start, said


class Shelf:
    """Reads the world's journal."""

    def __init__(self, world: World) -> None:
        self._world = world

    def came(self, seq: int) -> datetime | None:
        return next((NOW for one in self._world.rows if one.seq == seq), None)

    def gaps(self, _limit: int) -> list[Any]:
        return []

    def kept_after(self, seq: int, limit: int) -> tuple[list[Kept], bool]:
        found = [one for one in self._world.rows if one.seq > seq][:limit]
        return found, len(found) == limit

    def close(self) -> None: ...


def model(number: int) -> Event:
    return event_of(make(serial=number), None, Delivery())


def parsed(chunk: bytes) -> Iterator[Said]:
    for block in chunk.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":"))
        if "data" in lines:
            seq = int(lines.get("id", "0").rpartition("-")[2])
            yield Said(lines.get("event", "message"), seq, json.loads(lines["data"]))


async def read_along(world: World) -> None:
    """Come and go; what it was not sent of what came meanwhile, it was told it lost."""
    while not world.done:
        await world.turns((0, 5, 50, 300))
        at, said = await world.read(None)
        for one in said:
            if one.name == "lost":
                at += one.data["lost"]
            elif one.name == "message":
                assert one.number == world.told[at]
                at += 1
            elif one.name == "bye":
                assert at == len(world.told)
            else:
                assert one.name == "hello"


async def come_back(world: World) -> None:
    """Come back for what it has not had: each event once and in order, or named as erased."""
    had: list[int] = []
    last = 0
    while not world.done:
        await world.turns((0, 5, 50))
        for one in (await world.read(last))[1]:
            if one.name == "lost":
                last = int(one.data["resumeFrom"].rpartition("-")[2])
                break
            if one.name == "gap":
                assert one.data["reason"] == "retention"
                gone = range(one.data["from"], one.data["to"] + 1)
                assert not [row for row in world.rows if row.seq in gone and not row.ours]
                had += [seq for seq in world.places if seq in gone]
            elif one.name == "message" and one.seq:
                had.append(one.seq)
            last = max(last, one.seq)
    assert had == [seq for seq in world.places if seq <= last]


Play = Callable[..., Awaitable[None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Have readers beside a world until its end."""
    for name, value in SMALL.items():
        monkeypatch.setattr(f"cti_listener.admin.{name}", value)

    async def played(world: World, *readers: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def in_thread(look: Callable[..., Any], *given: Any) -> Any:
            await world.turns((0, 1, 5, 20))
            return look(*given)

        monkeypatch.setattr(asyncio, "to_thread", in_thread)
        monkeypatch.setattr("cti_listener.admin.stream.Reader", lambda _path: Shelf(world))
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(world.run())
            for one in readers:
                tasks.create_task(one(world))
        # Nothing is kept for nobody.
        assert not world.ring.readers
        assert not world.ring._waiting  # noqa: SLF001 - as above
        assert not list(world.listener._handover.taps)  # noqa: SLF001 - as above

    return played


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("journal", [False, True])
async def test_whoever_reads_along_is_told_exactly_how_much_it_lost(
    play: Play, seed: int, *, journal: bool
) -> None:
    world = World(seed, journal=journal)
    await play(world, *[read_along] * world.chance.choice((1, 2, 4)))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whoever_comes_back_has_each_event_once_or_its_place_named(
    play: Play, seed: int
) -> None:
    await play(World(seed, journal=True), come_back, come_back, read_along)
