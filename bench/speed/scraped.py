"""What being asked costs: the listener with its admin endpoint, asked and not asked.

All three have the endpoint open, and so track calls and agents, while 20,000 events a second come.
One is scraped at once and then every second, by another process, as Prometheus would; to one ten
readers are connected that read nothing. Two things count: how long it takes until all is handled,
and for how long the process computes meanwhile, since that is what would limit a higher rate. What
readers cost of that is less than one run differs from the next by, so it is looked at second by
second, of one listener that has readers and has none in turn.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from itertools import islice
from statistics import median

from prometheus_client import generate_latest

from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Receiver, ours_of_calls
from bench.speed.sender import NAMESPACE, Load
from cti_listener import Listener
from cti_listener.admin import make_admin
from cti_listener.admin.metrics import ListenerCollector, registry_of
from cti_listener.admin.server import AdminServer
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

PAIRS = 4
"""So often it has none and some in turn, in a round ..."""

TURN = 3.0
"""... for so long each, in seconds ..."""

SETTLING = 1.5
"""... of which so much is not counted: until readers are full, they are told what happens."""

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
    turns = _Turns()
    seconds = race(sender, runs, rounds)
    slower = replace(load, rate=RATE // 2, events=int(RATE // 2 * TURN * (2 * PAIRS + 1)))
    race(sender, {"in turn": (turns, slower)}, rounds // 2)
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
        if name == "read":
            mine, alone = turns.read[PAIRS:], turns.alone[PAIRS:]  # one round goes before
        else:
            mine, alone = (_per_event(computed[one][-rounds:], load) for one in (name, "alone"))
        yield row(
            "  the same, by how long it computes",
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


class _Turns:
    """A receiver that has readers and has none in turn.

    Attributes:
        alone: For how long the process computed an event without, in seconds.
        read: With, right behind each of these.
    """

    def __init__(self) -> None:
        self.alone: list[float] = []
        self.read: list[float] = []

    async def __call__(self, sender: str, load: Load) -> float:
        begun = asyncio.get_running_loop().create_future()

        async def take_turns() -> None:
            listener = await begun
            async with make_admin(listener) as admin:
                while not listener.stats().distinct:  # noqa: ASYNC110 - counters have no event
                    await asyncio.sleep(SETTLING)
                for _ in range(PAIRS):
                    for beside, costs in ((_nobody, self.alone), (_silent_readers, self.read)):
                        async with beside(admin):
                            costs.append(await _cost(listener))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(take_turns())
            return await ours_of_calls(sender, load, begun.set_result)


async def _cost(listener: Listener) -> float:
    """Return for how long the process computes an event now, in seconds."""
    await asyncio.sleep(SETTLING)
    handled, before = listener.stats().distinct, time.process_time()
    await asyncio.sleep(TURN - SETTLING)
    return (time.process_time() - before) / (listener.stats().distinct - handled)


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
