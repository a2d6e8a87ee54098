"""What the journal takes: entries a second, and how large the groups are that are committed.

    python -m bench.journal [--events N] [--devices N] [--dir PATH]

Entries come in bursts of 50, as a read of 32 KiB brings them, and at most 20,000 are under way.
With `done`, each is done as soon as it is committed. `alone`: one at a time, how long that takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.speed.sender import make_event
from cti_listener.clock import SystemClock
from cti_listener.journal import Journal, encode
from cti_listener.journal.writer import Synchronous
from cti_listener.values import routing_key

BURST = 50
OWED = ("work",)
UNDER_WAY = 20_000


@dataclass(slots=True)
class Sent:
    """An event as `Journal.append` takes it."""

    device: str | None
    call: str
    received_at: datetime
    payload: dict[str, Any]


def make_entries(events: int, devices: int) -> list[Sent]:
    entries = []
    for number in range(events):
        payload = json.loads(make_event(number, devices))
        call = f"{number // 8:08x}-3c92-11e8-bbcd-33878bfda0e8"
        device = routing_key(payload)
        entries.append(Sent(device, call, datetime.now(UTC), payload))
    return entries


def append(store: Journal, sent: Sent) -> None:
    store.append(
        sent,
        device=sent.device,
        call=sent.call,
        received_at=sent.received_at,
        feed="a",
        text=encode(sent.payload),
        owed=OWED,
    )


async def burst(path: Path, synchronous: Synchronous, entries: list[Sent], *, done: bool) -> str:
    store = Journal(path, synchronous=synchronous, clock=SystemClock())
    sizes: list[int] = []
    landed = 0
    less_under_way = asyncio.Event()

    def committed(first: int, group: list[Sent]) -> None:
        nonlocal landed
        landed += len(group)
        sizes.append(len(group))
        less_under_way.set()
        if done:
            for seq, entry in enumerate(group, first):
                store.done("work", entry.device, seq)

    store.committed = committed
    await store.open(["work"])
    began, cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(entries), BURST):
        for entry in entries[at : at + BURST]:
            append(store, entry)
        await asyncio.sleep(0)
        while at + BURST - landed > (UNDER_WAY if at + BURST < len(entries) else 0):
            less_under_way.clear()
            await less_under_way.wait()
    took = time.perf_counter() - began
    cpu = time.process_time() - cpu
    commits = store.stats().commits
    await store.close()
    assert landed == len(entries)
    return (
        f"{synchronous:7} {'done' if done else 'append':7} {landed / took:9,.0f} entries/s"
        f" {cpu / landed * 1e6:6.1f} us CPU each, {commits:5} commits,"
        f" groups of {statistics.median(sizes):.0f} (median) to {max(sizes)}"
    )


async def alone(path: Path, synchronous: Synchronous, entries: list[Sent]) -> str:
    store = Journal(path, synchronous=synchronous, clock=SystemClock())
    came = asyncio.Event()
    store.committed = lambda _first, _group: came.set()
    await store.open(["work"])
    times = []
    for entry in entries:
        began = time.perf_counter()
        append(store, entry)
        await came.wait()
        came.clear()
        times.append((time.perf_counter() - began) * 1000)
    await store.close()
    ranked = sorted(times)
    return (
        f"{synchronous:7} alone   {statistics.median(ranked):6.2f} ms a commit (median),"
        f" {ranked[len(ranked) * 99 // 100]:.2f} ms (99%)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument(
        "--dir", type=Path, default=None, help="by default the system's temporary folder"
    )
    given = parser.parse_args()
    entries = make_entries(given.events, given.devices)
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        number = 0
        modes: tuple[Synchronous, ...] = ("full", "normal")
        for synchronous in modes:
            for done in (False, True):
                number += 1
                path = Path(name, f"{number}.db")
                print(asyncio.run(burst(path, synchronous, entries, done=done)))
                print(f"{'':15} {path.stat().st_size / len(entries):9,.0f} bytes each on disk")
            path = Path(name, f"{synchronous}.db")
            print(asyncio.run(alone(path, synchronous, entries[:300])))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
