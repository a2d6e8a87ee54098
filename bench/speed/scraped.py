"""What being asked costs: the listener with its admin endpoint, asked and not asked.

All three have the endpoint open, and so track calls and agents, while 20,000 events a second come.
One is scraped at once and then every second, by another process, as Prometheus would; to one ten
readers are connected that read nothing. Two things count: how long it takes until all is handled,
and for how long the process computes meanwhile, since that is what would limit a higher rate. What
readers cost of that is less than one run differs from the next by, so two listeners in one process,
one with readers and one without, are given the same events by turns.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from statistics import median

from prometheus_client import generate_latest

from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Receiver, ours_of_calls
from bench.speed.sender import NAMESPACE, Load
from cti_listener import Event, Listener
from cti_listener.admin import make_admin
from cti_listener.admin.metrics import ListenerCollector, registry_of
from cti_listener.admin.server import AdminServer
from cti_listener.events import load_object
from cti_listener.simulator import Centre
from cti_listener.testing import FakeSource

AGENTS = 1000
RATE = 20_000
"""Events a second."""

LASTS = 6
"""For how many seconds they come: so often one is scraped."""

EVERY = 1.0
"""How often it is scraped, in seconds."""

SCRAPER = """
import sys, time, urllib.request
while True:
    with urllib.request.urlopen(sys.argv[1]) as answer:
        assert b"cti_listener_frames_received_total" in answer.read()
    time.sleep(float(sys.argv[2]))
"""

BLOCK = 2000
"""So many events are given to a listener at a time, of which ..."""

READ = 50
"""... so many come with one read of a socket."""

FILLING = 20
"""So many blocks are not counted: until readers are full, they are told what happens."""

SCRAPES = 100
READERS = 10

Beside = Callable[[AdminServer], AbstractAsyncContextManager[None]]


def scraped(sender: str, rounds: int) -> Iterator[Row]:
    """Compare times by the clock, and of computing."""
    load = Load(RATE * LASTS, devices=AGENTS, calls=1, rate=RATE)
    computed: dict[str, list[float]] = {"alone": [], "scraped": []}
    runs: dict[str, tuple[Receiver, Load]] = {
        "alone": (_with(_nobody, computed["alone"]), load),
        "scraped": (_with(_prometheus, computed["scraped"]), load),
        "read": (_with(_silent_readers, []), load),
    }
    seconds = race(sender, runs, rounds)
    for name, whom in (
        ("scraped", "The admin endpoint scraped every second: to not scraped"),
        ("read", "Ten readers of its events who read nothing: to none"),
    ):
        yield row(
            whom,
            over(seconds["alone"], seconds[name]),
            at_least=0.97,
            detail=f"{rate(seconds[name], load.events)} to {rate(seconds['alone'], load.events)}",
        )
        if name == "scraped":
            mine, alone = (_per_event(computed[one][-rounds:], load) for one in (name, "alone"))
            what = "  the same, by how long it computes"
        else:
            alone, mine = asyncio.run(_costs_of_readers(10 * rounds))
            what = "  the same events without a socket, by how long it computes"
        yield row(
            what,
            over(alone, mine),
            at_least=0.97,
            detail=f"{1e6 * median(mine):.1f} us an event to {1e6 * median(alone):.1f}",
        )
    yield row("A scrape, as a share of its second", [asyncio.run(_share())], at_most=0.03)


def _per_event(seconds: Sequence[float], load: Load) -> list[float]:
    return [one / load.events for one in seconds]


async def _share() -> float:
    """Return for how many seconds a scrape computes, of a listener with so many agents."""
    source = FakeSource()
    listener = Listener(source, namespace=NAMESPACE)
    registry = registry_of(ListenerCollector(listener, version="0"))
    assert len(listener.calls) == 0  # asking begins to track
    async with listener:
        for _, event in islice(Centre(1, agents=AGENTS, namespace=NAMESPACE), 4 * AGENTS):
            source.send(event)
        before = time.process_time()
        for _ in range(SCRAPES):
            generate_latest(registry)
        return (time.process_time() - before) / SCRAPES


def _with(beside: Beside, computed: list[float]) -> Receiver:
    """Receive with somebody beside; note for how long the process computes."""

    async def receive(sender: str, load: Load) -> float:
        begun = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def ask() -> None:
            async with make_admin(await begun) as admin, beside(admin):
                await over.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
            before = time.process_time()
            took = await ours_of_calls(sender, load, begun.set_result)
            computed.append(time.process_time() - before)
            over.set()
        return took

    return receive


async def _costs_of_readers(blocks: int) -> tuple[list[float], list[float]]:
    """Return what an event costs, block by block, of a listener without readers and of one with.

    In seconds of computing. Both are in one process and are given the same events without a
    socket, by turns, so that what the machine does meanwhile is both of theirs.
    """
    centre = Centre(1, agents=AGENTS, rate=AGENTS * 0.1, namespace=NAMESPACE)
    texts = [json.dumps(event).encode() for _, event in islice(centre, BLOCK * (blocks + FILLING))]
    alone, read = _Fed(), _Fed()
    costs: dict[_Fed, list[float]] = {alone: [], read: []}
    async with (
        alone.listener,
        read.listener,
        make_admin(alone.listener),
        make_admin(read.listener) as admin,
        _silent_readers(admin),
    ):
        for number in range(blocks + FILLING):
            block = texts[number * BLOCK : (number + 1) * BLOCK]
            for one in (alone, read) if number % 2 else (read, alone):
                costs[one].append(await one.take(block))
        assert read.handled == alone.handled == len(texts)
    return costs[alone][FILLING:], costs[read][FILLING:]


class _Fed:
    """A listener that is given events without a socket, and handles them all."""

    def __init__(self) -> None:
        self._source = FakeSource()
        self.listener = Listener(self._source, namespace=NAMESPACE)
        self.handled = 0

        @self.listener.on()
        async def count(_event: Event) -> None:
            self.handled += 1

    async def take(self, texts: Sequence[bytes]) -> float:
        """Handle these; return for how long that computes, an event, in seconds."""
        due, began = self.handled + len(texts), time.process_time()
        for at in range(0, len(texts), READ):
            for text in texts[at : at + READ]:
                self._source.send(load_object(text))
            await asyncio.sleep(0)
        while self.handled < due:  # noqa: ASYNC110 - what has an event costs more
            await asyncio.sleep(0)
        return (time.process_time() - began) / len(texts)


@asynccontextmanager
async def _nobody(_admin: AdminServer) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _prometheus(admin: AdminServer) -> AsyncIterator[None]:
    """Have another process scrape; a forked one would share our memory, and cost us that."""
    program = (sys.executable, "-c", SCRAPER, f"{admin.url}metrics", str(EVERY))
    scraper = await asyncio.create_subprocess_exec(*program)
    try:
        yield
    finally:
        assert scraper.returncode is None, "nobody scraped"
        scraper.kill()
        await scraper.wait()


@asynccontextmanager
async def _silent_readers(admin: AdminServer) -> AsyncIterator[None]:
    writers = []
    for _ in range(READERS):
        reader, writer = await asyncio.open_connection("127.0.0.1", admin.port, limit=1)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        writers.append(writer)
    try:
        yield
    finally:
        assert not any(writer.is_closing() for writer in writers), "a reader was cut off"
        for writer in writers:
            writer.close()
