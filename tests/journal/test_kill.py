"""`kill -9` at any moment: what was told as committed is there, what is done was told as done."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

from cti_listener.journal import Entry
from tests.journal.support import journal

KILLS = 10


def run_and_kill(path: Path, ledger: Path, after: float) -> None:
    """Kill it some time after it committed something."""
    size = ledger.stat().st_size if ledger.exists() else 0
    with subprocess.Popen([sys.executable, "-m", "tests.journal.victim", path, ledger]) as victim:
        give_up = time.monotonic() + 20
        while not (ledger.exists() and ledger.stat().st_size > size):
            assert victim.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.002)
        time.sleep(after)
        assert victim.poll() is None
        victim.kill()
    told = ledger.read_bytes()
    os.truncate(ledger, told.rfind(b"\n") + 1)  # else the next one would go on in a torn line


def facts(ledger: Path) -> tuple[dict[int, int], set[int]]:
    """Return the serials committed, by number, and the numbers done."""
    committed, done = {}, set()
    for line in ledger.read_text().splitlines():
        kind, seq, *serial = line.split()
        if kind == "c":
            committed[int(seq)] = int(serial[0])
        else:
            done.add(int(seq))
    return committed, done


def test_nothing_committed_is_lost_and_done_is_a_prefix(tmp_path: Path) -> None:
    path, ledger = tmp_path / "journal.db", tmp_path / "ledger"
    chance = random.Random(7)
    for _ in range(KILLS):
        run_and_kill(path, ledger, chance.uniform(0.0, 0.3))
        committed, done = facts(ledger)
        db = sqlite3.connect(path)
        kept = dict(db.execute("SELECT seq, json_extract(payload, '$.serial') FROM event"))
        marks = dict(db.execute("SELECT device, seq FROM mark"))
        (floor,) = db.execute("SELECT coalesce(max(floor), 0) FROM handler").fetchone()
        devices = dict(db.execute("SELECT seq, device FROM event"))
        db.close()
        assert committed.items() <= kept.items()
        assert sorted(kept) == list(range(1, len(kept) + 1))  # whole groups, and no hole

        async def undone() -> set[int]:
            async with journal(path) as store:
                seqs = sorted(chain.from_iterable(store.opened.unfinished["work"].values()))
                found = await asyncio.to_thread(store.read, seqs)
                assert [one.seq for one in found] == seqs
                assert all(isinstance(one, Entry) and one.redelivered for one in found)
                return set(seqs)

        left = asyncio.run(undone())
        assert set(kept) - left <= done  # nothing counts as done that no handler finished
        assert set(marks.values()) <= done
        assert left == {seq for seq in kept if seq > max(floor, marks.get(devices[seq], 0))}
