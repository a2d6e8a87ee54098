"""Durable handlers in the journal: their names, what they are owed, how far they are.

The writer calls it within its transactions.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from cti_listener.clock import Clock
from cti_listener.journal import rows
from cti_listener.journal.base import NO_DEVICE, Entry, Seqs, Unreadable

DEATHS: Final = 500
"""How many dead letters come to life in one commit."""

_KEPT: Final = "digest, received_at, device, call, feed, late, payload"
"""What a dead letter keeps of its event."""

_BURY: Final = f"""
    INSERT INTO dead (handler, seq, failed_at, error, retry, {_KEPT})
    SELECT ?, seq, ?, ?, 0, {_KEPT} FROM event WHERE seq = ?
"""  # noqa: S608 - our own words

_EXHUME: Final = f"""
    INSERT INTO event (wanted, redelivered, {_KEPT}) SELECT ?, 1, {_KEPT} FROM dead WHERE id = ?
"""  # noqa: S608 - our own words

_LETTER: Final = f"""
    SELECT {rows.ENTRY_COLUMNS.replace("redelivered", "1")} FROM dead WHERE id = ?
"""  # noqa: S608 - our own words

_MARK: Final = rows.Insert(
    "INSERT INTO mark SELECT ?1, column1, column2",
    2,
    "AND (EXISTS (SELECT 1 FROM event WHERE seq = column2) OR EXISTS ("
    "SELECT 1 FROM event WHERE coalesce(device, '') = column1 AND seq < column2"
    " AND seq > (SELECT floor FROM handler WHERE id = ?1)))"
    " ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
)
"""Of an event that was erased meanwhile, only where others of its device need it: it names that."""


class Registry:
    """Knows handlers by name, and sets of them by number.

    Args:
        db: The journal.
        clock: The one clock.
    """

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        """Know none yet."""
        self._db = db
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._sets: dict[tuple[str, ...], int] = {}

    def register(self, name: str, last_seq: int) -> int:
        """Return a handler's number; a new one starts after `last_seq`."""
        known = self._numbers.get(name)
        if known is not None:
            return known
        self._db.execute(
            "INSERT INTO handler (name, floor, active) VALUES (?, ?, 1)"
            " ON CONFLICT (name) DO UPDATE SET active = 1",
            (name, last_seq),
        )
        (number,) = self._db.execute("SELECT id FROM handler WHERE name = ?", (name,)).fetchone()
        self._numbers[name] = int(number)
        return int(number)

    def wanted(self, owed: tuple[str, ...], last_seq: int) -> int:
        """Return the number of a set of handlers; most events are owed to one of a few sets."""
        known = self._sets.get(owed)
        if known is not None:
            return known
        ids = sorted({self.register(name, last_seq) for name in owed})
        text = ",".join(map(str, ids))
        db = self._db
        db.execute("INSERT INTO wanted (ids) VALUES (?) ON CONFLICT DO NOTHING", (text,))
        (number,) = db.execute("SELECT id FROM wanted WHERE ids = ?", (text,)).fetchone()
        for one in ids:
            db.execute("INSERT INTO member VALUES (?, ?) ON CONFLICT DO NOTHING", (number, one))
        self._sets[owed] = int(number)
        return int(number)

    def all_wanted(self, owed: Sequence[tuple[str, ...]], last_seq: int) -> list[int]:
        """Return the numbers of many sets of handlers."""
        for one in set(owed):
            self.wanted(one, last_seq)
        sets = self._sets
        return [sets[one] for one in owed]

    def mark(self, marks: Mapping[str, dict[str | None, int]], last_seq: int) -> None:
        """Note how far each lane is; the lane of all devices raises its handler's floor."""
        for name, lanes in marks.items():
            handler = self.register(name, last_seq)
            whole = lanes.pop(None, None)
            if whole is not None:
                self._db.execute(
                    "UPDATE handler SET floor = max(floor, ?) WHERE id = ?", (whole, handler)
                )
            flat: list[Any] = [None] * (2 * len(lanes))
            flat[::2], flat[1::2] = lanes.keys(), lanes.values()
            rows.insert_many(self._db, _MARK, flat, (handler,))

    def bury(self, name: str, seq: int, error: str, last_seq: int) -> None:
        """Keep what failed, with its event, and count it done.

        All before it is done in its device's lane, and in a lane of all devices: the device's mark
        says so for both.
        """
        handler = self.register(name, last_seq)
        self._db.execute(
            _BURY,
            (handler, rows.stamp(self._clock.now()), error, seq),
        )
        self._db.execute(
            "INSERT INTO mark SELECT ?, coalesce(device, ?), seq FROM event WHERE seq = ?"
            " ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
            (handler, NO_DEVICE, seq),
        )

    def asked_for(self) -> list[tuple[int, str]]:
        """Return the dead letters to be tried once more, each with its handler, which is here."""
        return self._db.execute(
            "SELECT dead.id, handler.name FROM dead JOIN handler ON handler.id = dead.handler"
            " WHERE retry AND handler.active ORDER BY dead.id LIMIT ?",
            (DEATHS,),
        ).fetchall()

    def bring_back(self, letter: int, name: str) -> Entry | Unreadable:
        """Make a dead letter the newest event, owed to its handler alone, and return that.

        One that cannot be read stays a dead letter, and is not asked for any more.
        """
        db = self._db
        entry = rows.entry_of(db.execute(_LETTER, (letter,)).fetchone(), 0)
        if isinstance(entry, Unreadable):
            said = f"\nNot tried once more: {entry.problem}\n"
            db.execute("UPDATE dead SET retry = 0, error = error || ? WHERE id = ?", (said, letter))
            return entry
        entry.seq = db.execute(_EXHUME, (self.wanted((name,), 0), letter)).lastrowid or 0
        db.execute("DELETE FROM dead WHERE id = ?", (letter,))
        return entry

    def unfinished(self) -> tuple[dict[str, dict[str, Seqs]], dict[str, int]]:
        """Find what is left to do.

        Returns:
            What the handlers of this run have yet to do, by name and device; and by name how much
            absent ones had.
        """
        here: dict[str, dict[str, Seqs]] = {}
        absent: dict[str, int] = {}
        for number, stored, active in self._db.execute("SELECT id, name, active FROM handler"):
            found = self._db.execute(rows.undone("device, seq"), rows.undone_between(number))
            name = rows.legible(stored)
            if not active:
                absent[name] = sum(1 for _ in found)
                continue
            lanes: defaultdict[str, Seqs] = defaultdict(partial(array, "q"))
            for device, seq in found:
                lanes[NO_DEVICE if device is None else rows.legible(device)].append(seq)
            here[name] = lanes
        return here, absent
