"""An hour of load with mild faults: does anything grow that should not?

    python -m bench.soak [--minutes N] [--seed N] [--rate N] [--feeds 1|2] [--journal PATH]

The simulated servers run in a process of their own. Every few seconds: resident memory, tasks, open
files, lanes, what waits. In the end the load ends, the listener has nothing to do any more, and is
stopped. It must hold that

- resident memory is flat: the median of the last tenth is within 5% of the median of the tenth
  behind the warm-up, which is the first fifth, and 3 minutes at least: the window that repeats are
  told by fills to 200,000 events before;
- with nothing to do, no lane is left, the files are as many as they were, and the tasks too but for
  the workers that are spare;
- stopped, tasks and files are as many as before it was made.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from bench.far_side import Marks, far_side
from bench.stage import NAMESPACE, Play
from cti_listener import Event, Listener
from cti_listener.workers import SPARE

GROWTH = 0.05
TENTH, WARM_UP = 0.1, 0.2
LONGEST_WARM_UP = 180.0
PAGE = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaking:
    """What to soak in; times are in seconds."""

    seed: int = 1
    seconds: float = 3600.0
    every: float = 10.0
    rate: float = 2000.0
    feeds: int = 1
    devices: int = 500
    troubles: str = (
        "drop_every=60,half_open_every=300,stall_every=30:0.5,error_every=180,away_every=180:1,"
        "no_receipts=0.1"
    )
    journal: Path | None = None

    def play(self) -> Play:
        """Play without end, some of it twice, and some of it nonsense."""
        return Play(
            seed=self.seed,
            events=None,
            devices=self.devices,
            rate=self.rate / 10,
            speed=10.0,
            servers=self.feeds,
            stream=("repeat=0.02,malformed=0.001,restart_every=3600",),
            troubles=self.troubles,
            ledger=False,
        )


class Sample(NamedTuple):
    """What is held at one moment."""

    at: float
    memory: int
    tasks: int
    files: int
    lanes: int
    waiting: int
    handled: int
    connections: int

    @property
    def line(self) -> str:
        """Return it as a line of the table."""
        return (
            f"{self.at:8.1f} {self.memory / 2**20:9.1f} {self.tasks:6} {self.files:6}"
            f" {self.lanes:6} {self.waiting:8} {self.handled:12,} {self.connections:7}"
        )


HEAD = (
    f"{'seconds':>8} {'MiB':>9} {'tasks':>6} {'files':>6} {'lanes':>6} {'waiting':>8}"
    f" {'handled':>12} {'lives':>7}"
)


@dataclass(slots=True, kw_only=True)
class Course:
    """How it went.

    Attributes:
        before: Before there was a listener.
        idle: Connected, before the load.
        samples: Under load.
        rested: Connected, after the load.
        after: When the listener was stopped.
    """

    before: Sample
    idle: Sample
    samples: list[Sample] = field(default_factory=list)
    rested: Sample
    after: Sample

    @property
    def growth(self) -> float | None:
        """By how much memory grew behind the warm-up; None if that was all."""
        whole = self.samples[-1].at
        warm = max(LONGEST_WARM_UP, whole * WARM_UP)
        first = self._memory(warm, warm + whole * TENTH)
        last = self._memory(whole * (1 - TENTH), whole)
        if not first or not last or warm + whole * TENTH > whole * (1 - TENTH):
            return None
        return statistics.median(last) / statistics.median(first) - 1

    def _memory(self, since: float, until: float) -> Sequence[int]:
        return [one.memory for one in self.samples if since <= one.at <= until]

    @property
    def left(self) -> list[str]:
        """Say what did not return to its start."""
        idle, rested, before, after = self.idle, self.rested, self.before, self.after
        found = [
            ("lanes with nothing to do", rested.lanes, rested.lanes == 0),
            ("happenings that wait", rested.waiting, rested.waiting == 0),
            ("open files with nothing to do", rested.files, rested.files == idle.files),
            ("tasks with nothing to do", rested.tasks, rested.tasks <= idle.tasks + SPARE),
            ("tasks in the end", after.tasks, after.tasks == before.tasks),
            ("open files in the end", after.files, after.files == before.files),
        ]
        return [f"{count} {what}" for what, count, right in found if not right]


class Gauge:
    """Reads what is held now."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._listener: Listener | None = None

    def watch(self, listener: Listener) -> None:
        """Ask this listener as well."""
        self._listener = listener

    async def read(self) -> Sample:
        memory, files = await asyncio.to_thread(_of_the_process)
        listener = self._listener
        if listener is None:
            return self._sample(memory, files)
        stats = listener.stats()
        # The count of lanes has no public name, and is what must not grow.
        lanes = sum(map(len, listener._engine.dispatcher._lanes.values()))  # noqa: SLF001
        handled = sum(one.handled for one in stats.handlers.values())
        return self._sample(memory, files, lanes, stats.waiting, handled, stats.connections)

    def _sample(self, memory: int, files: int, *counts: int) -> Sample:
        lanes, waiting, handled, connections = counts or (0, 0, 0, 0)
        return Sample(
            at=time.perf_counter() - self._began,
            memory=memory,
            tasks=len(asyncio.all_tasks()),
            files=files,
            lanes=lanes,
            waiting=waiting,
            handled=handled,
            connections=connections,
        )


def _of_the_process() -> tuple[int, int]:
    """Return resident memory in bytes, and how many files are open."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return resident, sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # the folder's


async def soak(soaking: Soaking, tell: Callable[[str], None] = print) -> Course:
    """Soak, and return how it went; a line each is told of it meanwhile."""
    async with far_side(soaking.play()) as far:
        gauge = Gauge()
        before = await gauge.read()
        listener = Listener([url.stomp for url in far.urls], **_options(soaking))
        gauge.watch(listener)
        marks = Marks(listener)

        @listener.on(name="soak")  # with a journal, one that it keeps events for
        async def take(_: Event) -> None:
            """Do nothing: it is counted."""

        async with listener:
            await marks.all_come(far)
            idle = await gauge.read()
            samples: list[Sample] = []
            while not samples or samples[-1].at < soaking.seconds:
                await asyncio.sleep(soaking.every)
                samples.append(await gauge.read())
                tell(samples[-1].line)
            await far.enough()
            await far.played()
            await far.calm()
            await marks.all_come(far)
            rested = await _rested(gauge, idle)
            await listener.stop()
        after = await gauge.read()
    return Course(before=before, idle=idle, samples=samples, rested=rested, after=after)


async def _rested(gauge: Gauge, idle: Sample) -> Sample:
    """Wait until nothing is left to do, but not for long; the marker may be ahead of others."""
    for _ in range(100):
        sample = await gauge.read()
        if not sample.waiting and not sample.lanes and sample.files == idle.files:
            break
        await asyncio.sleep(0.1)
    return sample


def _options(soaking: Soaking) -> dict[str, Any]:
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "proxy": None,
        "ping_interval": 1.0,
        "silence_limit": 3.0,
    }
    if soaking.feeds > 1:
        options["redundancy"] = soaking.feeds
    if soaking.journal is not None:
        options["journal"] = soaking.journal
    return options


def main() -> None:
    """Soak and print how it goes; exit 1 if something grew, or was left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--feeds", type=int, choices=(1, 2), default=1)
    parser.add_argument("--journal", type=Path, help="as Listener(journal=)")
    given = vars(parser.parse_args())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(HEAD)
    course = asyncio.run(soak(Soaking(seconds=given.pop("minutes") * 60, **given)))
    for name in ("before", "idle", "rested", "after"):
        print(f"{getattr(course, name).line}  {name}")
    growth, problems = course.growth, course.left
    if growth is None:
        print("too short to say whether memory grows")
    else:
        print(f"memory grew by {growth:.1%} behind the warm-up")
        problems += [f"more than {GROWTH:.0%}"] if growth > GROWTH else []
    if problems:
        sys.exit(f"not as at the start: {', '.join(problems)}")


if __name__ == "__main__":
    main()
