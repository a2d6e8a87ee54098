"""What grows with devices, handlers, events remembered, subscriptions and connections."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator

from bench.speed.pieces import pieces
from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Check, Receiver, ours_json
from bench.speed.sender import NAMESPACE, Load, event_of
from cti_listener import Delivered, Event, Listener
from cti_listener.dedupe import Dedupe
from cti_listener.testing import FakeSource

MANY = 100_000

IDLE = """
import asyncio, logging
logging.disable()
from cti_listener import Event, Listener
async def listen():
    listener = Listener("{url}", namespace="zhen04.cc", wire="json", query="", proxy=None)
    @listener.on(Event)
    async def note(event): pass
    async with listener:
        await asyncio.sleep(0.5)
asyncio.run(listen())
"""
"""A program that listens to one who says nothing."""

CLIENT = "import websockets.asyncio.client"

ONE_MODEL = f"""
{CLIENT}
class Model(pydantic.BaseModel):
    field: int
"""

WHAT_IT_TAKES = {"websockets' client": CLIENT, "that, and one model of one field": ONE_MODEL}
"""What these libraries load when they are used: an import alone leaves most of it out."""


def growth(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Compare times and memory."""
    yield from _by_devices(sender, max(events, MANY), rounds)
    yield from _by_handlers(sender, events, rounds)
    yield row("Memory per idle device seen, bytes", [asyncio.run(_per_device())], at_most=200)
    yield row("Memory per event remembered, bytes", [_per_entry()], at_most=150)
    yield from pieces()
    libraries = "import websockets, pydantic, structlog"
    alone = [_resident(libraries) for _ in range(rounds)]
    idle = [_resident(IDLE.format(url=Load(0).url(sender, "json"))) for _ in range(rounds)]
    yield row(
        f"Memory of an idle process: to `{libraries}`",
        over(idle, alone),
        at_most=1.2,
        detail=f"{statistics.median(idle):.0f} to {statistics.median(alone):.0f} MiB",
    )
    for more, what in WHAT_IT_TAKES.items():
        with_more = [_resident(f"{libraries}\n{what}") for _ in range(rounds)]
        yield row(
            f"  to the same and {more}",
            over(idle, with_more),
            detail=f"{statistics.median(with_more):.0f} MiB",
        )


def _by_devices(sender: str, events: int, rounds: int) -> Iterator[Row]:
    loads = {count: Load(events, devices=count) for count in (10, 1000, MANY)}
    runs = {str(count): (ours_json, load) for count, load in loads.items()}
    seconds = race(sender, runs, rounds)
    worst = [max(one) / min(one) for one in zip(*seconds.values(), strict=True)]
    rates = ", ".join(rate(one, events) for one in seconds.values())
    yield row(
        "Time an event at 10, 1,000 and 100,000 devices: worst to best",
        worst,
        at_most=1.3,
        detail=rates,
    )


def _by_handlers(sender: str, events: int, rounds: int) -> Iterator[Row]:
    load = Load(events)
    others = {str(count): (_with_others(count), load) for count in (1, 10, 1000)}
    own = {str(count): (_with_own(count), Load(events, devices=count)) for count in (1, 10, 1000)}
    for which, runs in (("other devices", others), ("its own device each", own)):
        seconds = race(sender, runs, rounds)
        worst = [max(one) / min(one) for one in zip(*seconds.values(), strict=True)]
        yield row(
            f"Time an event with 1, 10 and 1,000 handlers of {which}: worst to best",
            worst,
            at_most=1.3,
            detail=", ".join(rate(one, events) for one in seconds.values()),
        )


def _with_others(count: int) -> Receiver:
    """Take all that comes, beside so many handlers of devices that never come."""

    def register(listener: Listener, take: Callable[[Event], Coroutine[None, None, None]]) -> None:
        async def other(_: Event) -> None:
            """Be called never."""

        listener.on(Delivered)(take)
        for number in range(count):
            listener.on(Delivered, device=f"{900_000 + number}")(other)

    return _with_handlers(register)


def _with_own(count: int) -> Receiver:
    """Take what comes of so many devices, by a handler for each."""

    def register(listener: Listener, take: Callable[[Event], Coroutine[None, None, None]]) -> None:
        for number in range(count):
            listener.on(Delivered, device=f"{8000 + number}")(_of(f"{8000 + number}", take))

    return _with_handlers(register)


def _of(
    device: str, take: Callable[[Event], Coroutine[None, None, None]]
) -> Callable[[Event], Coroutine[None, None, None]]:
    full = f"{device}@{NAMESPACE}"

    async def take_own(event: Event) -> None:
        assert event.src_device_id == full, f"{device} was given an event of {event.src_device_id}"
        await take(event)

    return take_own


def _with_handlers(
    register: Callable[[Listener, Callable[[Event], Coroutine[None, None, None]]], None],
) -> Receiver:
    async def receive(sender: str, load: Load) -> float:
        check = Check(load)
        url = load.url(sender, "json")
        listener = Listener(url, namespace=NAMESPACE, wire="json", query="", compression=False)

        async def take(event: Event) -> None:
            check.take(event)

        register(listener, take)
        async with listener:
            await check.done.wait()
            stats = listener.stats()
        assert sum(one.handled for one in stats.handlers.values()) == load.events, "not each once"
        return check.seconds

    return receive


# Memory


async def _per_device() -> float:
    """Return the bytes that a device which was seen costs, beside what its event costs."""
    return (await _kept(devices=MANY) - await _kept(devices=1)) / MANY


async def _kept(*, devices: int) -> int:
    source = FakeSource()
    listener = Listener(source, namespace=NAMESPACE)

    @listener.on(Event)
    async def forget(event: Event) -> None:
        del event

    async with listener:
        source.send(event_of(0, 1))
        await _at_rest(listener)
        gc.collect()
        tracemalloc.start()
        for number in range(1, MANY + 1):
            source.send(event_of(number, devices))
            if number % 100 == 0:
                await _at_rest(listener)
        await _at_rest(listener)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        stats = listener.stats()
    assert sum(one.handled for one in stats.handlers.values()) == MANY + 1
    return kept


async def _at_rest(listener: Listener) -> None:
    while listener.stats().waiting:  # noqa: ASYNC110 - it is nobody else's turn
        await asyncio.sleep(0)


def _per_entry() -> float:
    tracemalloc.start()
    dedupe = Dedupe()
    for number in range(MANY):
        dedupe.admit(hash((number, "8002")), 0.0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dedupe) == MANY
    return kept / MANY


def _resident(code: str) -> float:
    """Run this in a process of its own; return how much memory it had in the end, in MiB."""
    tail = "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, check=True, text=True
    )
    return int(done.stdout.split()[-1]) / 1024
