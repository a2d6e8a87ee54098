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
from tests.journal.support import Held, Sent, entry


async def main(path: Path, ledger: Path) -> None:
    told = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    chance = random.Random()
    clock = SystemClock()
    store = Held(path, clock=clock)
    done: list[tuple[str | None, int]] = []

    def note(lines: list[str]) -> None:
        os.write(told, "".join(lines).encode())

    def committed(first: int, group: list[Sent]) -> None:
        numbered = list(enumerate(group, first))
        note([f"c {seq} {one.payload['serial']}\n" for seq, one in numbered])
        done.extend((one.device, seq) for seq, one in numbered)

    def finish(some: list[tuple[str | None, int]]) -> None:
        note([f"d {seq}\n" for _, seq in some])
        for device, seq in some:
            store.done("work", device, seq)

    store.committed = committed
    opened = await store.open(["work"])
    for device, seqs in opened.unfinished["work"].items():
        finish([(device, seq) for seq in seqs])
    for number in range(opened.last_seq + 1, 10_000_000):
        store.add(entry(number, at=clock.now()))
        if chance.random() < 0.1:
            await asyncio.sleep(0)
            some = chance.randint(0, len(done))
            finish(done[:some])
            del done[:some]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
