"""Many subscriptions on one connection, and many connections in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench.speed.ratios import Row, row
from bench.speed.sender import Load

CONNECTIONS = 200
SUBSCRIPTIONS = 1000
IDLE = 10.0
"""For how long the connections are watched, in seconds: two pings of each fall due."""

MANY_CONNECTIONS = """
import asyncio, contextlib, logging, os, time
logging.disable()
import cti_listener.sources.websocket
from cti_listener import Event, Listener
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
async def main():
    async with contextlib.AsyncExitStack() as stack:
        first = Listener("{url}", namespace="zhen04.cc", wire="json", query="", proxy=None)
        await stack.enter_async_context(first)
        before, began = resident(), time.perf_counter()
        rest = [
            Listener("{url}", namespace="zhen04.cc", wire="json", query="", proxy=None)
            for _ in range({count})
        ]
        await asyncio.gather(*(stack.enter_async_context(one) for one in rest))
        assert all(one.stats().connected for one in rest)
        took, more = time.perf_counter() - began, resident() - before
        cpu = time.process_time()
        await asyncio.sleep({idle})
        cpu = time.process_time() - cpu
        print(took, more / {count}, cpu / {idle} / {count} * 1e6)
asyncio.run(main())
"""

MANY_SUBSCRIPTIONS = """
import asyncio, logging, time
logging.disable()
import cti_listener.sources.websocket
from cti_listener import Event, Listener
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
async def main():
    before, began = resident(), time.perf_counter()
    topics = [f"/topic/event.agent.zhen04_cc.{{number}}" for number in range({count})]
    listener = Listener("{url}", namespace="zhen04.cc", wire="stomp", topics=topics, proxy=None)
    async with listener:
        took, more = time.perf_counter() - began, resident() - before
        assert listener.stats().subscriptions == {count}
        cpu = time.process_time()
        await asyncio.sleep({idle})
        cpu = time.process_time() - cpu
        print(took, more / {count}, cpu / {idle} * 1e6)
asyncio.run(main())
"""


def many(sender: str, rounds: int) -> Iterator[Row]:
    """Tell what one more costs."""
    url = Load(0).url(sender, "json")
    code = MANY_CONNECTIONS.format(url=url, count=CONNECTIONS, idle=IDLE)
    runs = [_figures(code) for _ in range(rounds)]
    yield row(
        f"{CONNECTIONS} more connections in one process: start, ms each",
        _each(runs, 0, 1e3 / CONNECTIONS),
    )
    yield row("  memory of each, KiB", _each(runs, 1))
    yield row("  processor time of an idle one, us a second", _each(runs, 2))
    url = Load(0).url(sender, "stomp")
    code = MANY_SUBSCRIPTIONS.format(url=url, count=SUBSCRIPTIONS, idle=IDLE)
    runs = [_figures(code) for _ in range(rounds)]
    yield row(
        f"{SUBSCRIPTIONS:,} subscriptions on one connection: start, ms each",
        _each(runs, 0, 1e3 / SUBSCRIPTIONS),
    )
    yield row("  memory of each, KiB", _each(runs, 1))
    yield row("  processor time of all while idle, us a second", _each(runs, 2))


def _each(runs: list[tuple[float, ...]], index: int, factor: float = 1.0) -> list[float]:
    return [one[index] * factor for one in runs]


def _figures(code: str) -> tuple[float, ...]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return tuple(map(float, done.stdout.split()))
