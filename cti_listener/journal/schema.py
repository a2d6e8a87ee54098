"""The file: its tables, whether it is ours, how an older one is brought forward.

Called by the writer, which owns the file, and by the command line, which visits it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from cti_listener.errors import JournalError
from cti_listener.journal import lock
from cti_listener.journal.base import MOVE_AWAY
from cti_listener.log import log

APPLICATION_ID: Final = 0x4354494A  # "CTIJ"
VERSION: Final = 4
BUSY_TIMEOUT: Final = 60.0
"""How long the listener waits for a visit, in seconds; the longest is a purge writing it anew."""

VISIT_TIMEOUT: Final = 10.0
"""How long a visit waits for the listener."""

CHECKED_UP_TO: Final = 64 << 20
"""Up to this size a file is read through for damage at each start; above it, as it is met."""

TABLES: Final = """
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last_sign REAL,                         -- up to when nothing was missed
    tracked BLOB,                           -- what was known of calls and agents
    tracked_seq INTEGER,                    -- by which event
    identity TEXT                           -- chance: tells this journal from one in its place
);
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- never falls back, whatever is deleted
    digest INTEGER NOT NULL,                -- 0; it told repeats once
    device TEXT,
    call TEXT,
    received_at REAL NOT NULL,              -- seconds since 1970, as all times here
    feed TEXT NOT NULL,
    wanted INTEGER NOT NULL,                -- which set of handlers it is owed
    redelivered INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX event_call ON event (call);      -- does its call live?
CREATE TABLE handler (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- a forgotten one's id never comes again
    name TEXT NOT NULL UNIQUE,
    floor INTEGER NOT NULL,                 -- everything up to here is done for it
    active INTEGER NOT NULL                 -- registered by the last run
);
CREATE TABLE wanted (id INTEGER PRIMARY KEY, ids TEXT NOT NULL UNIQUE);
CREATE TABLE member (
    wanted INTEGER NOT NULL,
    handler INTEGER NOT NULL,
    PRIMARY KEY (wanted, handler)
) WITHOUT ROWID;
CREATE TABLE mark (                         -- a lane is serial: all up to seq is done in it
    handler INTEGER NOT NULL,
    device TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (handler, device)
) WITHOUT ROWID;
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    handler INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    failed_at REAL NOT NULL,
    error TEXT NOT NULL,
    retry INTEGER NOT NULL,                 -- asked for on the command line
    digest INTEGER NOT NULL,                -- as above
    device TEXT,
    call TEXT,
    received_at REAL NOT NULL,
    feed TEXT NOT NULL,
    late INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE TABLE gap (id INTEGER PRIMARY KEY, until REAL, body TEXT NOT NULL);
CREATE TABLE queue (name TEXT PRIMARY KEY, emptied REAL NOT NULL);  -- kept by a broker, or held
CREATE TABLE seat (agent TEXT PRIMARY KEY, device TEXT NOT NULL, since TEXT NOT NULL);
INSERT INTO state (one, identity) VALUES (1, lower(hex(randomblob(6))));
"""

Step = Callable[[sqlite3.Connection], object]


def _to_2(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE state ADD COLUMN tracked BLOB")
    db.execute("ALTER TABLE state ADD COLUMN tracked_seq INTEGER")


def _to_3(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE state ADD COLUMN identity TEXT")
    db.execute("UPDATE state SET identity = lower(hex(randomblob(6)))")


def _to_4(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE seat (agent TEXT PRIMARY KEY, device TEXT NOT NULL, since TEXT NOT NULL)"
    )
    for table in ("event", "dead"):
        db.execute(f"UPDATE {table} SET call = NULL WHERE call IN ('', '0')")  # noqa: S608 - our own words


STEPS: Final[Mapping[int, Step]] = {1: _to_2, 2: _to_3, 3: _to_4}
"""What brings a journal of this version to the next one."""


def see_place(path: Path) -> None:
    """Refuse what can be no journal, before anything is made beside it.

    Raises:
        JournalError: It is a folder, a device, or a link that leads nowhere.
    """
    if path.exists():
        if not path.is_file():
            raise JournalError(path, "is no file; name one")
    elif path.is_symlink():
        target = path.readlink()
        raise JournalError(path, f"is a link to {target}, which is not there; name a file")


def connect(path: Path, mode: str, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open the file as it is: `ro` to read, `rw` to write; it is never made here.

    Raises:
        JournalError: It is no file.
    """
    see_place(path)
    file = lock.connected(path)
    try:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=lock.Connection,
        )
    except BaseException:
        lock.disconnected(file)
        raise
    db.file = file
    db.text_factory = _text
    return db


def _text(stored: bytes) -> str | bytes:
    """Return a text as it stands; one that is no UTF-8 any more as bytes, as `rows` takes it."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def version_of(db: sqlite3.Connection, path: Path) -> int | None:
    """Return the schema's version; None for an empty file.

    Raises:
        JournalError: It is somebody else's, or of a newer version.
    """
    application = _pragma(db, "application_id")
    version = _pragma(db, "user_version")
    if application != APPLICATION_ID:
        if application or version or db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise JournalError(
                path, "is another program's database; it is left as it is, name another file"
            )
        return None
    if version > VERSION:
        raise JournalError(
            path, f"was written by a newer cti-listen (version {version}); use that one"
        )
    return version


def make(path: Path) -> None:
    """Make an empty file if there is none; one that is empty is for its owner alone, if we may."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not path.stat().st_size:
            with suppress(PermissionError):
                path.chmod(0o600)


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the journal to own it: checked, made of an empty file, brought to this version.

    Raises:
        JournalError: It is not ours, newer, or damaged.
    """
    # Look first without the right to write: what is not ours must not change by being tried.
    looked = connect(path, "ro")
    try:
        version_of(looked, path)
    finally:
        looked.close()
    db = connect(path, "rw")
    try:
        _set_up(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    version = version_of(db, path)
    if (mode := db.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
        raise JournalError(path, f"its file system allows no shared memory (mode {mode})")
    if version is None:
        db.executescript(
            f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {VERSION}; COMMIT;"
        )
        return
    see_undamaged(db, path)
    migrate(db, path, version)


def see_undamaged(db: sqlite3.Connection, path: Path) -> None:
    """Read a file through for damage, up to `CHECKED_UP_TO`.

    Raises:
        JournalError: It is damaged.
    """
    if path.stat().st_size <= CHECKED_UP_TO:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            what = " ".join(verdict.split())
            raise JournalError(path, f"is damaged ({what}); {MOVE_AWAY}")


def migrate(
    db: sqlite3.Connection,
    path: Path,
    version: int,
    *,
    steps: Mapping[int, Step] = STEPS,
    target: int = VERSION,
) -> None:
    """Bring an older journal forward in one transaction, with a copy of it kept beside.

    Args:
        db: The journal, open to write.
        path: Its file; the copy is `PATH.v1` for version 1, or `PATH.v1.2` if that is there.
        version: What it is now.
        steps: What brings each version to the next.
        target: What it is to be.

    Raises:
        JournalError: No way leads from its version.
    """
    if version == target:
        return
    missing = [one for one in range(version, target) if one not in steps]
    if missing:
        raise JournalError(
            path, f"version {version} is too old; finish it with an older cti-listen"
        )
    copy = _copy(db, path.with_name(f"{path.name}.v{version}"))
    try:
        db.execute("BEGIN IMMEDIATE")
        for one in range(version, target):
            steps[one](db)
        db.execute(f"PRAGMA user_version = {target}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # where the disk is full, SQLite has taken all back by itself
            db.execute("ROLLBACK")
        copy.unlink()  # else each start that fails would leave one more
        raise
    log.info("journal_migrated", path=str(path), version=version, to=target, copy=str(copy))


def _copy(db: sqlite3.Connection, path: Path) -> Path:
    """Write a whole copy, or none: it gets its name when it is complete; return that."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(unfinished)
    try:
        try:
            db.backup(copy)
        finally:
            copy.close()
    except BaseException:
        for ending in ("", "-journal"):  # or a disk that it filled would stay so
            unfinished.with_name(f"{unfinished.name}{ending}").unlink(missing_ok=True)
        raise
    free = _free(path)
    unfinished.rename(free)
    return free


def _free(path: Path) -> Path:
    """Return a name that no earlier copy has."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
