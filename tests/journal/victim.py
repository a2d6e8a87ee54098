"""A program to be killed: writes to a journal as fast as it can, and tells a ledger what it did.

    python -m tests.journal.victim JOURNAL LEDGER

The ledger has a line for each fact, written before anyone could act on it: `c SEQ SERIAL` for an
event committed, `d SEQ` for one that a handler is done with (told before the journal is).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from cti_listener.clock import SystemClock
from cti_listener.journal import Entry, Journal
from tests.journal.support import entry


async def main(path: Path, ledger: Path) -> None:
    told = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    chance = random.Random()
    clock = SystemClock()
    store = Journal(path, clock=clock)
    done: list[Entry] = []

    def note(lines: list[str]) -> None:
        os.write(told, "".join(lines).encode())

    def committed(entries: list[Entry]) -> None:
        note([f"c {one.seq} {one.payload['serial']}\n" for one in entries])
        done.extend(entries)

    def finish(entries: list[Entry]) -> None:
        note([f"d {one.seq}\n" for one in entries])
        for one in entries:
            store.done("work", one.device, one.seq)

    store.committed = committed
    opened = await store.open(["work"])
    finish(await asyncio.to_thread(store.unfinished, "work", limit=1_000_000))
    for number in range(opened.last_seq + 1, 10_000_000):
        store.append(entry(number, at=clock.now()))
        if chance.random() < 0.1:
            await asyncio.sleep(0)
            some = chance.randint(0, len(done))
            finish(done[:some])
            del done[:some]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
