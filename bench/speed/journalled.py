"""What the journal costs: the listener with one against itself without, on the same frames.

With the journal the handler is durable and the disk is waited for (`synchronous=full`): every event
is committed before the handler sees it, and what it did is marked. In the end all of them are in
the journal, and done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Receiver, ours_json, with_journal
from bench.speed.sender import Load
from cti_listener.journal import visits


def journalled(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Compare rates."""
    load = Load(events)
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, tuple[Receiver, Load]] = {
            "without": (ours_json, load),
            "with": (_in_new_journals(Path(folder)), load),
        }
        seconds = race(sender, runs, rounds)
    yield row(
        "The listener with a journal at full synchronous: to without",
        over(seconds["without"], seconds["with"]),
        at_least=0.6,
        detail=f"{rate(seconds['with'], events)} to {rate(seconds['without'], events)}",
    )


def _in_new_journals(folder: Path) -> Receiver:
    numbers = count()

    async def receive(sender: str, load: Load) -> float:
        path = folder / f"{next(numbers)}.db"
        took = await with_journal(sender, load, path)
        with visits.visit(path) as db:
            (kept,) = db.execute("SELECT count(*) FROM event").fetchone()
            (handler,) = visits.summary(db, path)["handlers"]
        assert kept == load.events
        assert handler["unfinished"] == handler["dead"] == 0
        return took

    return receive
