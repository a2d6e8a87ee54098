"""What is on disk, read beside the writer: for lanes that left something there."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from cti_listener.journal import gap_rows, rows, schema
from cti_listener.journal.base import OURS, DamagedError, Entry, Unreadable, explained
from cti_listener.log import log
from cti_listener.notices import Gap

_CHUNK: Final = 500
"""How many events are asked for in one statement."""


_MOST_TEXT: Final = 1 << 18
"""About so many characters are read at once where whole events are asked for."""

_KEPT: Final = f"SELECT {rows.ENTRY_COLUMNS} FROM event WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - our own words


class Kept(NamedTuple):
    """A row as it stands.

    Attributes:
        seq: Its place.
        device: Its routing key; None where nothing told.
        received_at: When it came, aware; None if the row cannot be read.
        ours: It is no event that came: a notice that followed from one, or a dead letter that was
            tried once more.
        event: The object as received; None if the row cannot be read.
    """

    seq: int
    device: str | None
    received_at: datetime | None
    ours: bool
    event: dict[str, Any] | None


class Reader:
    """Reads committed rows; from any thread, one at a time. It waits for the disk.

    Args:
        path: The journal, which exists.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing before it is asked."""
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def read(self, seqs: Sequence[int], *, earlier: int) -> list[Entry | Unreadable]:
        """Return these events, less those that were erased meanwhile.

        Args:
            seqs: Their numbers, in order.
            earlier: Up to here an earlier run may have begun them.

        Raises:
            JournalError: The file cannot be read.
        """
        found: list[Entry | Unreadable] = []
        with self._opened() as db:
            for at in range(0, len(seqs), _CHUNK):
                chosen = ", ".join(map(str, seqs[at : at + _CHUNK]))
                query = f"SELECT {rows.ENTRY_COLUMNS} FROM event WHERE seq IN ({chosen})"  # noqa: S608 - whole numbers
                rows_found = db.execute(f"{query} ORDER BY seq").fetchall()
                found += [rows.entry_of(row, earlier) for row in rows_found]
        return found

    def read_after(self, seq: int, *, earlier: int) -> Iterator[Entry | Unreadable]:
        """Yield the events behind this one, some at a time.

        Args:
            seq: Its number.
            earlier: Up to here an earlier run may have begun them.

        Raises:
            JournalError: The file cannot be read.
        """
        while True:
            with self._opened() as db:
                found = db.execute(_KEPT, (seq, _CHUNK)).fetchall()
            for row in found:
                yield rows.entry_of(row, earlier)
                seq = row[0]
            if len(found) < _CHUNK:
                return

    def kept_after(self, seq: int, limit: int) -> tuple[list[Kept], bool]:
        """Return the next rows behind this one, as they stand.

        Args:
            seq: Its number.
            limit: How many at most; fewer where they are large.

        Returns:
            The rows, and whether there may be more.

        Raises:
            JournalError: The file cannot be read.
        """
        found: list[Kept] = []
        left = _MOST_TEXT
        with self._opened() as db:
            for row in db.execute(_KEPT, (seq, limit)):
                found.append(_kept(rows.entry_of(row, 0)))
                left -= len(row[-1])
                if left <= 0:
                    break
        return found, left <= 0 or len(found) == limit

    def came(self, seq: int) -> datetime | None:
        """Return when this event came; None: it is not there any more.

        Raises:
            JournalError: The file cannot be read.
        """
        found, _ = self.kept_after(seq - 1, 1)
        return found[0].received_at if found and found[0].seq == seq else None

    def gaps(self, limit: int) -> list[Gap]:
        """Return the latest gaps that are over, of all runs, in order; less what cannot be read.

        Args:
            limit: How many at most.

        Raises:
            JournalError: The file cannot be read.
        """
        query = "SELECT id, body FROM gap WHERE until IS NOT NULL ORDER BY id DESC LIMIT ?"
        with self._opened() as db:
            found = db.execute(query, (limit,)).fetchall()
        gaps = []
        for row in reversed(found):
            try:
                gaps.append(gap_rows.gap_of(*row))
            except DamagedError as damaged:
                log.error("journal_gap_unreadable", path=str(self._path), problem=str(damaged))
        return gaps

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Have the file to oneself, open.

        Raises:
            JournalError: It cannot be read.
        """
        with self._lock:
            try:
                if self._db is None:
                    self._db = schema.connect(self._path, "ro")
                yield self._db
            except sqlite3.Error as error:
                raise explained(self._path, error) from error

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


def _kept(entry: Entry | Unreadable) -> Kept:
    if isinstance(entry, Unreadable):
        return Kept(entry.seq, None, None, ours=False, event=None)
    ours = entry.feed == OURS or entry.repeated
    return Kept(entry.seq, entry.device, entry.received_at, ours, entry.payload)
