"""Durable handlers in the journal: their names, what they are owed, how far they are.

The writer calls it within its transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from cti_listener.clock import Clock
from cti_listener.journal import rows
from cti_listener.journal.base import NO_DEVICE

DEATHS: int = 500
"""How many dead letters come to life in one commit."""


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

    def mark(self, marks: Mapping[tuple[str, str | None], int], last_seq: int) -> None:
        """Note how far each lane is; the lane of all devices raises its handler's floor."""
        flat: list[Any] = []
        for (name, device), seq in marks.items():
            handler = self.register(name, last_seq)
            if device is None:
                self._db.execute(
                    "UPDATE handler SET floor = max(floor, ?) WHERE id = ?", (seq, handler)
                )
            else:
                flat += (handler, device, seq)
        tail = "ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)"
        rows.insert_many(self._db, "INSERT INTO mark", 3, flat, tail)

    def bury(self, name: str, seq: int, error: str, last_seq: int) -> None:
        """Keep what failed, with its event, and count it done.

        All before it is done in its device's lane, and in a lane of all devices: the device's mark
        says so for both.
        """
        handler = self.register(name, last_seq)
        self._db.execute(
            "INSERT INTO dead (handler, seq, failed_at, error, retry, digest, device, call,"
            " received_at, feed, late, payload) SELECT ?, seq, ?, ?, 0, digest, device, call,"
            " received_at, feed, late, payload FROM event WHERE seq = ?",
            (handler, rows.stamp(self._clock.now()), error, seq),
        )
        self._db.execute(
            "INSERT INTO mark SELECT ?, coalesce(device, ?), seq FROM event WHERE seq = ?"
            " ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
            (handler, NO_DEVICE, seq),
        )

    def exhume(self) -> list[Any]:
        """Take out what the command line wants tried once more, for handlers that are here.

        Returns:
            Rows of the handler's name and `rows.EVENT_COLUMNS`.
        """
        found = self._db.execute(
            "SELECT dead.id, handler.name, 0, digest, device, call, received_at, feed, 0, 1,"
            " late, payload FROM dead JOIN handler ON handler.id = dead.handler"
            " WHERE retry AND handler.active ORDER BY dead.id LIMIT ?",
            (DEATHS,),
        ).fetchall()
        for row in found:
            self._db.execute("DELETE FROM dead WHERE id = ?", row[:1])
        return [row[1:] for row in found]

    def unfinished(self) -> tuple[int, dict[str, int]]:
        """Count what the handlers of this run have to do, and by name what absent ones had."""
        here, absent = 0, {}
        for number, name, active in self._db.execute("SELECT id, name, active FROM handler"):
            (count,) = self._db.execute(
                f"SELECT count(*) FROM ({rows.undone(None, 'seq')})",  # noqa: S608 - our own words
                rows.undone_between(number),
            ).fetchone()
            if active:
                here += count
            else:
                absent[name] = count
        return here, absent
