"""From the sender's clock to the handler, at a rate that keeps nobody busy."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence

from websockets.asyncio.client import connect

from bench.speed.ratios import Row, in_time, over, row
from bench.speed.receivers import Check
from bench.speed.sender import NAMESPACE, Load
from cti_listener import Event, Listener, parse_event

WAITING = 0.01
"""Which part of the devices has a handler that waits."""

WAIT = 0.05
"""For how long it does, in seconds."""

Delays = Callable[[str, Load], Coroutine[None, None, list[float]]]


def _delay(event: Event) -> float:
    assert event.call_id is not None
    return (time.monotonic_ns() - int(event.call_id)) / 1e9


async def bare(sender: str, load: Load) -> list[float]:
    """A bare loop."""
    found: list[float] = []
    check = Check(load)
    async with connect(load.url(sender, "json"), compression=None) as websocket:
        while check.missing:
            event = parse_event(await websocket.recv(decode=False))
            found.append(_delay(event))
            check.take(event)
    assert check.seconds
    return found


async def ours(sender: str, load: Load) -> list[float]:
    """The listener."""
    return await _listen(sender, load, waiting=frozenset())


async def ours_beside_waiting(sender: str, load: Load) -> list[float]:
    """The listener, whose handler waits on some devices; these are left out."""
    some = range(8000, 8000 + int(load.devices * WAITING))
    return await _listen(sender, load, waiting=frozenset(f"{one}@{NAMESPACE}" for one in some))


async def _listen(sender: str, load: Load, *, waiting: frozenset[str]) -> list[float]:
    found: list[float] = []
    check = Check(load)
    url = load.url(sender, "json")
    options = {"compression": False, "query": "", "proxy": None}
    listener = Listener(url, namespace=NAMESPACE, wire="json", **options)  # type: ignore[arg-type]

    @listener.on(Event)
    async def note(event: Event) -> None:
        if event.device in waiting:
            await asyncio.sleep(WAIT)
        else:
            found.append(_delay(event))
        check.take(event)

    async with listener:
        await check.done.wait()
    assert check.seconds
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def latency(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Compare the median and the last percent."""
    load = Load(events, devices=1000, rate=2000)
    ways: dict[str, Delays] = {"bare": bare, "ours": ours, "waiting": ours_beside_waiting}
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            delays = asyncio.run(in_time(name, way, sender, load))
            if number:
                found[name].append(delays)
    at = {
        (name, percent): [percentile(one, percent) for one in runs]
        for name, runs in found.items()
        for percent in (50, 99)
    }
    for percent in (50, 99):
        mine, theirs = at["ours", percent], at["bare", percent]
        yield row(
            f"Latency at 2,000/s, p{percent}: the listener to bare websockets",
            over(mine, theirs),
            at_most=1.5,
            detail=f"{_micro(mine)} to {_micro(theirs)}",
        )
    yield row(
        "Latency p99 with a handler that waits on 1% of devices: to without",
        over(at["waiting", 99], at["ours", 99]),
        at_most=1.2,
        detail=_micro(at["waiting", 99]),
    )


def _micro(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:,.0f} us"
