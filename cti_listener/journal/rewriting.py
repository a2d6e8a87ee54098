"""The journal's file written anew for `purge`, so that no unused byte of it tells anything.

VACUUM makes a copy in a temporary file, and brings it back through the write-ahead log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cti_listener.journal import lock

WRITTEN_AT_ONCE: Final = 1 << 30
"""A larger file is written anew only while no listener waits for it."""


def rewrite(db: sqlite3.Connection, path: Path) -> bool:
    """Write the file anew and empty its log; False: somebody is in the way, or it is too large.

    Raises:
        sqlite3.Error: It cannot be written anew; its log is emptied all the same.
    """
    large = path.stat().st_size > WRITTEN_AT_ONCE and lock.in_use(path)
    try:
        if not large:
            db.execute("VACUUM")
    finally:
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not (busy or large)


@contextmanager
def temporary_beside(
    db: sqlite3.Connection, path: Path, environ: Mapping[str, str]
) -> Iterator[None]:
    """Have SQLite's temporary files beside the journal until the end of the block.

    That holds for the whole process. It goes by a pragma that SQLite discourages, for the
    environment is read when `sqlite3` is imported. A folder that cannot be one leaves SQLite to its
    own.

    Args:
        db: The journal, open to write.
        path: Its file.
        environ: The environment; `SQLITE_TMPDIR` in it holds.
    """
    if "SQLITE_TMPDIR" in environ:
        yield
        return
    folder = str(path.resolve().parent).replace("'", "''")
    with suppress(sqlite3.OperationalError, UnicodeEncodeError):
        db.execute(f"PRAGMA temp_store_directory = '{folder}'")
    try:
        yield
    finally:
        db.execute("PRAGMA temp_store_directory = ''")
