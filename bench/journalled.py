"""What the journal costs: the pipeline with one against the pipeline without, on the same frames.

    python -m bench.journalled [--events N] [--pairs N] [--devices N] [--dir PATH]

Both filter, dedupe, route by device and run a counting handler in lanes. With the journal the
handler is durable and the disk is waited for (`synchronous=full`): every event is committed before
the handler sees it, and what it did is marked. Each is timed from connecting to its last event
handled; the two alternate, and the ratio is taken pair by pair. Every run checks that all events
arrived, typed, each device's in order; with the journal also that all of them are in it and, at the
end, done.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import structlog

from bench.throughput import NAMESPACE, Check, run_server
from cti_listener import Delivered, Listener
from cti_listener.journal import visits


async def time_listener(url: str, events: int, path: Path | None) -> tuple[float, int]:
    """Return the seconds the whole pipeline takes, and in how many commits."""
    seen = Check()
    done = asyncio.Event()
    listener = Listener(
        url, namespace=NAMESPACE, wire="json", compression=False, query="", journal=path
    )

    @listener.on(Delivered, name="count")
    async def count(event: Delivered) -> None:
        seen.take(event)
        if seen.count == events:
            done.set()

    began = time.perf_counter()
    async with listener:
        await done.wait()
        took = time.perf_counter() - began
        stats = listener.stats().journal
    seen.complete(events)
    if path is not None:
        check_journal(path, events)
    return took, 0 if stats is None else stats.commits


def check_journal(path: Path, events: int) -> None:
    with visits.visit(path) as db:
        (kept,) = db.execute("SELECT count(*) FROM event").fetchone()
        (handler,) = visits.summary(db, path)["handlers"]
    assert kept == events
    assert handler["unfinished"] == handler["dead"] == 0


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None, help="where the journals are made")
    arguments = parser.parse_args()
    events: int = arguments.events
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=run_server, args=(theirs, events, arguments.devices), daemon=True
    )
    server.start()
    url = f"ws://127.0.0.1:{ours.recv()}/events"
    without, with_it, commits = [], [], []
    try:
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            asyncio.run(time_listener(url, events, None))  # warm up, both ends
            for number in range(arguments.pairs):
                took, _ = asyncio.run(time_listener(url, events, None))
                without.append(took)
                path = Path(folder, f"{number}.db")
                took, count = asyncio.run(time_listener(url, events, path))
                with_it.append(took)
                commits.append(count)
    finally:
        server.terminate()
    for name, seconds in {"no journal": without, "journal, full": with_it}.items():
        rate = events / statistics.median(seconds)
        spread = " ".join(f"{events / one:,.0f}" for one in sorted(seconds, reverse=True))
        print(f"{name:24} {rate:10,.0f} events/s   ({spread})")
    ratios = sorted(a / b for a, b in zip(without, with_it, strict=True))
    print(
        f"{'ratio, median of pairs':24} {statistics.median(ratios):10.2f}"
        f"            ({' '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    print(f"{'commits':24} {statistics.median(commits):10,.0f}")


if __name__ == "__main__":
    main()
