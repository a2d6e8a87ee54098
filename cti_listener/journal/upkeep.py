"""Upkeep: what is done is deleted when its time is over, in small steps, and the size is watched.

The writer calls it within its own transactions, so that nothing waits for it longer than for a few
rows: each step looks at about twice as many as were committed with it.

A call lives while a row of it is younger than the retention: until then all its done rows stay.
A mark goes once its handler's floor is as high: it says no more than that.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Final

from cti_listener.clock import Clock
from cti_listener.journal.rows import (
    LAST_SEQ,
    UNDONE_BY_ANY,
    stamp,
    undone,
    undone_between,
    when,
)

STEP: Final = 200
"""How many rows a step looks at, at least."""

IDLE_STEP: Final = 2000
"""How many, when no event waits for it."""

LOOK: Final = 1.0
"""How often the size and what is done are looked at, in seconds."""

FAR: Final = 20_000
"""How far a handler's floor rises at once."""

_DELETE: Final = f"""
    DELETE FROM event WHERE seq > :after AND seq <= :until AND NOT {UNDONE_BY_ANY}
    AND NOT EXISTS (
        SELECT 1 FROM event AS other WHERE other.call = event.call AND other.seq >= :young)
"""  # noqa: S608 - our own words

_LAST_OF_STEP: Final = """
    SELECT handler, device FROM (
        SELECT handler, device FROM mark WHERE (handler, device) > (?, ?)
        ORDER BY handler, device LIMIT ?)
    ORDER BY handler DESC, device DESC LIMIT 1
"""

_DELETE_MARKS: Final = """
    DELETE FROM mark WHERE (handler, device) > (?, ?) AND (handler, device) <= (?, ?)
    AND seq <= (SELECT floor FROM handler WHERE id = mark.handler)
"""


class Upkeep:
    """Deletes what is over, raises the floors, measures.

    Args:
        retention: How long what is done stays, in seconds.
        clock: The one clock.
    """

    def __init__(self, retention: float, clock: Clock) -> None:
        """Start with everything to be looked at."""
        self._retention = retention
        self._clock = clock
        self._pause = min(60.0, retention / 10)
        self._next_look = self._next_sweep = clock.monotonic()
        self._after: int | None = None  # where the sweep stands; None between two
        self._after_mark: tuple[int, str | bytes] | None = None  # likewise
        self._young = 0  # the first row within the retention, when the sweep began
        self.bytes = self.used = self.dead = 0
        self.oldest_undone: datetime | None = None
        self.oldest_undone_by: str | None = None

    @property
    def due(self) -> bool:
        """Whether there is something to do by now."""
        now = self._clock.monotonic()
        return self._sweeping or now >= self._next_sweep or now >= self._next_look

    @property
    def _sweeping(self) -> bool:
        return self._after is not None or self._after_mark is not None

    def step(self, db: sqlite3.Connection, rows: int) -> None:
        """Do a part of it, within a transaction.

        Args:
            db: Where.
            rows: How many events this transaction wrote.
        """
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK
            self.look(db)
        if not self._sweeping and now >= self._next_sweep:
            self._next_sweep = now + self._pause
            self._after, self._young = 0, self.first_young(db)
            self._after_mark = 0, ""
        limit = STEP + 2 * rows if rows else IDLE_STEP
        if self._after is not None:
            self._sweep(db, self._after, limit)
        if self._after_mark is not None:
            self._sweep_marks(db, self._after_mark, limit)

    def look(self, db: sqlite3.Connection) -> None:
        """Find out what is done, and how large the file is."""
        self._raise_floors(db)
        self._measure(db)

    def first_young(self, db: sqlite3.Connection) -> int:
        """Return the first row within the retention."""
        return first_since(db, stamp(self._clock.now() - timedelta(seconds=self._retention)))

    def _sweep(self, db: sqlite3.Connection, after: int, limit: int) -> None:
        (until,) = db.execute(
            "SELECT max(seq) FROM"
            " (SELECT seq FROM event WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?)",
            (after, self._young, limit),
        ).fetchone()
        if until is not None:
            db.execute(_DELETE, {"after": after, "until": until, "young": self._young})
        self._after = until

    def _sweep_marks(
        self, db: sqlite3.Connection, after: tuple[int, str | bytes], limit: int
    ) -> None:
        until = db.execute(_LAST_OF_STEP, (*after, limit)).fetchone()
        if until is not None:
            db.execute(_DELETE_MARKS, (*after, *until))
        self._after_mark = until

    def _raise_floors(self, db: sqlite3.Connection) -> None:
        """Find out up to where each handler is done with everything, registered or not."""
        came: list[tuple[datetime, str]] = []
        (last,) = db.execute(f"SELECT {LAST_SEQ}").fetchone()
        handlers = db.execute("SELECT id, floor, name, active FROM handler").fetchall()
        for handler, floor, name, active in handlers:
            until = min(floor + FAR, last)
            if until <= floor:
                continue
            first = db.execute(
                undone("seq, received_at"),
                undone_between(handler, after=floor, until=until, limit=1),
            ).fetchone()
            if first is not None:
                until = first[0] - 1
                at = when(first[1])
                if active and at is not None:  # else its row is set aside in its turn
                    came.append((at, name))
            db.execute("UPDATE handler SET floor = ? WHERE id = ?", (until, handler))
        self.oldest_undone, self.oldest_undone_by = min(came, default=(None, None))

    def room_taken(self, db: sqlite3.Connection) -> int:
        """Return how many bytes of the file are in use."""
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        self.bytes, self.used = pages * size, (pages - free) * size
        return self.used

    def _measure(self, db: sqlite3.Connection) -> None:
        self.room_taken(db)
        (self.dead,) = db.execute("SELECT count(*) FROM dead").fetchone()


def first_since(db: sqlite3.Connection, limit: float) -> int:
    """Return the first row that came since a time; rows are in order of time, give or take.

    Not so dead letters that were brought back, which have the time of their event: they tell
    nothing of the rows before them, and came before the next row that is none.
    """
    ends = "SELECT (SELECT min(seq) FROM event), (SELECT max(seq) FROM event)"  # each by the index
    low, last = db.execute(ends).fetchone()
    if low is None:
        return 0
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        # SQLite compares whatever stands there. It looks no further than `high`: what was brought
        # back may be many rows, and is not to be gone through each time.
        found = db.execute(
            "SELECT received_at < ?, seq FROM event"
            " WHERE seq >= ? AND seq < ? AND NOT redelivered ORDER BY seq LIMIT 1",
            (limit, middle, high),
        ).fetchone()
        before, seq = found or (False, middle)
        if before:
            low = seq + 1
        else:
            high = middle
    # Of what was brought back and has only young rows behind it, or none, the own time is all.
    first = db.execute(
        "SELECT seq FROM event WHERE seq >= ? AND NOT (redelivered AND received_at < ?)"
        " ORDER BY seq LIMIT 1",
        (low, limit),
    ).fetchone()
    return int(first[0]) if first else int(last) + 1
