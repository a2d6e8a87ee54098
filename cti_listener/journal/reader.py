"""What a handler has yet to do, read beside the writer: for replay, and for lanes that spilled."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from cti_listener.journal import rows, schema
from cti_listener.journal.base import Entry, explained


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

    def unfinished(
        self, handler: str, device: str | None, *, after: int, limit: int, earlier: int
    ) -> list[Entry]:
        """Return what a handler has yet to do, oldest first.

        Args:
            handler: Its name.
            device: Only this device's, `NO_DEVICE`: only those without one; None: all.
            after: Only those after this one.
            limit: How many at most.
            earlier: Up to here an earlier run may have begun it.

        Raises:
            JournalError: The file cannot be read.
        """
        with self._lock:
            try:
                if self._db is None:
                    self._db = schema.connect(self._path, "ro")
                query = "SELECT id FROM handler WHERE name = ?"
                known = self._db.execute(query, (handler,)).fetchone()
                if known is None:
                    return []
                found = self._db.execute(
                    rows.undone(device, rows.EVENT_COLUMNS),
                    rows.undone_between(known[0], device=device, after=after, limit=limit),
                ).fetchall()
            except sqlite3.Error as error:
                raise explained(self._path, error) from error
        return [rows.entry_of(row, (handler,), earlier) for row in found]

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
