"""Where the time of an event goes: the clock of the listener and of the bare loop, file by file.

Sampled, while it does not wait for the sender: what a function in C takes counts for the file that
called it, so a model that is built is in `event_base.py`, and JSON that is read in the codec.
Nothing here is held to a goal.
"""

from __future__ import annotations

import gc
import signal
import statistics
from asyncio import run
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from bench.speed import receivers
from bench.speed.ratios import Row, in_time, row
from bench.speed.receivers import Receiver
from bench.speed.sender import Load

EVERY = 0.001
"""How often it is looked, in seconds."""

WAITING = "selectors.py"
"""Who is in there waits."""

SHOWN = 0.1
"""What takes less, in microseconds an event, is told in one line."""


def profiled(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Tell where the time goes, in microseconds a frame."""
    load, twice = Load(events), Load(events // 2, times=2)
    loads: dict[str, tuple[Receiver, Load]] = {
        "bare websockets": (receivers.bare_websockets, load),
        "the listener, JSON": (receivers.ours_json, load),
        "the listener, framed by websockets": (receivers.ours_by_websockets, load),
        "the listener, with a journal": (_with_journal, load),
        "the listener, STOMP": (receivers.ours_stomp, load),
        "the listener, each event twice": (receivers.ours_json, twice),
    }
    for name, (receiver, its_load) in loads.items():
        found = [_sampled(name, receiver, sender, its_load) for _ in range(rounds + 1)][1:]
        yield row(f"us a frame: {name}", [sum(one.values()) for one in found])
        files = {file for one in found for file in one}
        by_time = {file: statistics.median(one.get(file, 0.0) for one in found) for file in files}
        shown = [file for file in files if by_time[file] >= SHOWN]
        for file in sorted(shown, key=by_time.__getitem__, reverse=True):
            yield row(f"  {file}", [one.get(file, 0.0) for one in found])
        rest = [sum(one.values()) - sum(one.get(file, 0.0) for file in shown) for one in found]
        yield row("  all others", rest)


async def _with_journal(sender: str, load: Load) -> float:
    with TemporaryDirectory() as folder:
        return await receivers.with_journal(sender, load, Path(folder) / "journal.db")


def _sampled(name: str, receiver: Receiver, sender: str, load: Load) -> Mapping[str, float]:
    """Receive; return the microseconds a frame that each file took."""
    hits: Counter[str] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        if frame is not None and not frame.f_code.co_filename.endswith(WAITING):
            hits[frame.f_code.co_filename] += 1

    gc.collect()
    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        seconds = run(in_time(name, receiver, sender, load))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    each = 1e6 * seconds / (load.events * load.times) / hits.total()
    return {"/".join(Path(file).parts[-2:]): count * each for file, count in hits.items()}
