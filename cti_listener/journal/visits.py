"""Visits: what people ask of a journal, beside the listener that writes it.

Each visit opens the file for itself and is short. What it changes it writes in small transactions,
so that the listener never waits long, and the listener looks at what changed with its next commit.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from cti_listener import places
from cti_listener.errors import ConfigurationError, JournalError
from cti_listener.journal import gap_rows, lock, rows, schema
from cti_listener.journal.base import UNWRITABLE, DamagedError, explained
from cti_listener.notices import Gap

T = TypeVar("T")

Facts = dict[str, Any]
"""What is told of one thing, by its name in JSON."""

Odd = Callable[[DamagedError], None]
"""Told of what cannot be read; in its place stands None, and of a gap nothing."""


def refuse(damaged: DamagedError) -> None:
    """Tell nothing more."""
    raise damaged


def sound(odd: Odd, read: Callable[..., T], *stored: Any) -> T | None:
    """Read what is stored; None if it cannot be read, of which `odd` is told.

    Args:
        odd: Told of it.
        read: One of those in `rows`.
        *stored: What it reads.
    """
    try:
        return read(*stored)
    except DamagedError as damaged:
        odd(damaged)
        return None


_STATES: Final = """
    SELECT handler.name, CASE
        WHEN EXISTS (SELECT 1 FROM dead WHERE dead.handler = handler.id AND dead.seq = :seq)
            THEN 'dead'
        WHEN :seq <= max(handler.floor, coalesce(mark.seq, 0)) THEN 'done'
        ELSE 'unfinished' END
    FROM member JOIN handler ON handler.id = member.handler
    LEFT JOIN mark ON mark.handler = handler.id AND mark.device = :device
    WHERE member.wanted = :wanted ORDER BY handler.id
"""
_FACTS: Final = "seq, received_at, feed, device, call, redelivered, wanted, CAST(payload AS BLOB)"


@contextmanager
def visit(path: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a journal that exists, for a moment.

    Raises:
        JournalError: There is none, or it is not ours, of another version, or damaged.
    """
    try:
        schema.see_place(path)
        there = path.exists()
    except OSError as error:
        raise explained(path, error) from error
    if not there:
        raise JournalError(path, "does not exist; a listener with --journal makes it")
    try:
        db = schema.connect(path, "rw" if write else _to_read(path), schema.VISIT_TIMEOUT)
        try:
            version = schema.version_of(db, path)
            if version is None:
                raise JournalError(path, "is empty: no listener has opened it yet")
            if version < schema.VERSION:
                raise JournalError(path, "is of an older version; start a listener with it once")
            yield db
        finally:
            db.close()
    except sqlite3.Error as error:
        raise explained(path, error) from error


def _to_read(path: Path) -> str:
    """Return the mode to read a journal; as it lies, where SQLite could not make its log beside it.

    No listener uses that one: its log would be there.
    """
    log = _beside(path, "-wal")
    try:
        if not log.exists():
            places.see_makeable(log)
    except OSError:
        return "ro&immutable=1"
    return "ro"


def look(path: Path) -> None:
    """See whether a listener could have this file, or make it; nothing is made or changed.

    Raises:
        JournalError: As at a start.
    """
    try:
        schema.see_place(path)
        os.stat(f"{path.absolute().parent}/")  # noqa: PTH116 - the slash has it be a directory
        places.see_writable(lock.lock_path(path))
        if not path.exists():
            places.see_writable(path)
        else:
            _see_whole(path)
            _see_writable(path)
    except (sqlite3.Error, OSError) as error:
        raise explained(path, error) from error


def _see_whole(path: Path) -> None:
    """See whether a journal that is there is ours, and undamaged as far as a start looks.

    Raises:
        JournalError: As at a start.
    """
    log, index = (_beside(path, ending).exists() for ending in ("-wal", "-shm"))
    # Immutable where not both are there: else SQLite makes them.
    mode = "ro&readonly_shm=1" if log and index else "ro&immutable=1"
    db = schema.connect(path, mode, schema.VISIT_TIMEOUT)
    try:
        version = schema.version_of(db, path)
        if version is not None and (index or not log):  # a log that is passed over may mend it
            schema.see_undamaged(db, path)
    finally:
        db.close()


def _see_writable(path: Path) -> None:
    """See whether SQLite could write to a journal that is there, and to its files beside it.

    Raises:
        JournalError: As at a start.
    """
    try:
        for ending in ("", "-wal", "-shm"):
            places.see_writable(_beside(path, ending))
    except PermissionError as error:
        raise JournalError(path, UNWRITABLE) from error


def _beside(path: Path, ending: str) -> Path:
    """Return a file that SQLite keeps beside a journal, whatever link led to it."""
    real = path.resolve()
    return real.with_name(f"{real.name}{ending}")


def handler_number(db: sqlite3.Connection, name: str) -> int:
    """Return a handler's number.

    Raises:
        ConfigurationError: The journal knows no such handler.
    """
    found = db.execute("SELECT id FROM handler WHERE name = ?", (name,)).fetchone()
    if found is None:
        known = [one for (one,) in db.execute("SELECT name FROM handler ORDER BY id")]
        there = ", ".join(known) or "none"
        raise ConfigurationError(repr(name), f"is no handler of this journal; there are: {there}")
    return int(found[0])


def summary(db: sqlite3.Connection, path: Path, odd: Odd = refuse) -> Facts:
    """Tell how the journal stands."""
    for damaged in rows.odd_books(db):
        odd(damaged)
    sound(odd, rows.queues_of, db)
    sound(odd, rows.seats_of, db)
    state = sound(odd, rows.state_of, db)
    last_sign = None if state is None else state.last_sign
    (last_seq,) = db.execute(f"SELECT {rows.LAST_SEQ}").fetchone()
    (events,) = db.execute("SELECT count(*) FROM event").fetchone()
    oldest = db.execute("SELECT received_at, seq FROM event ORDER BY seq LIMIT 1").fetchone()
    first, at = oldest or (None, 0)
    gaps, still = db.execute("SELECT count(*), count(*) - count(until) FROM gap").fetchone()
    log = path.with_name(f"{path.name}-wal")
    return {
        "path": str(path),
        "inUse": lock.in_use(path),
        "events": events,
        "lastSeq": last_seq,
        "oldest": _time(odd, first, f"event {at}"),
        "lastSign": None if last_sign is None else _told(last_sign),
        "bytes": path.stat().st_size + (log.stat().st_size if log.exists() else 0),
        "gaps": gaps,
        "openGaps": still,
        "handlers": [
            _handler(db, odd, *row) for row in db.execute("SELECT * FROM handler").fetchall()
        ],
    }


def _handler(
    db: sqlite3.Connection, odd: Odd, number: int, name: str, _floor: int, active: int
) -> Facts:
    count, oldest = db.execute(
        f"SELECT count(*), min(received_at) FROM ({rows.undone('seq, received_at')})",  # noqa: S608 - our own words
        rows.undone_between(number),
    ).fetchone()
    (dead,) = db.execute("SELECT count(*) FROM dead WHERE handler = ?", (number,)).fetchone()
    return {
        "name": rows.legible(name),
        "registered": bool(active),
        "unfinished": count,
        "oldestUnfinished": _time(odd, oldest, f"an event owed to {name!r}"),
        "dead": dead,
    }


def events(
    db: sqlite3.Connection,
    *,
    handler: str | None = None,
    device: str | None = None,
    call: str | None = None,
    undone: bool = False,
    limit: int = 0,
    odd: Odd = refuse,
) -> Iterator[Facts]:
    """Tell the newest events that fit, oldest first.

    Args:
        db: The journal.
        handler: Only those owed to it.
        device: Only this device's, by its full id.
        call: Only this call's.
        undone: Only those that this handler, or any, has yet to do.
        limit: How many at most; 0: all.
        odd: Told of what cannot be read.
    """
    number = None if handler is None else handler_number(db, handler)
    if undone and number is not None:
        source = rows.undone("seq, device, call")
        values = rows.undone_between(number)
    else:
        owed = "wanted IN (SELECT wanted FROM member WHERE handler = :handler)"
        fits = [owed] * (number is not None) + [rows.UNDONE_BY_ANY] * undone
        source = f"SELECT seq, device, call FROM event WHERE {' AND '.join(fits) or 'TRUE'}"  # noqa: S608 - our own words
        values = {"handler": number or 0}
    found = db.execute(
        f"SELECT seq FROM ({source}) WHERE (:only IS NULL OR device = :only)"  # noqa: S608 - our own words
        " AND (:of IS NULL OR call = :of) ORDER BY seq DESC LIMIT :most",
        {**values, "only": rows.storable(device), "of": rows.storable(call), "most": limit or -1},
    ).fetchall()
    for (seq,) in reversed(found):
        told = event(db, seq, odd)
        if told is not None:  # else it was deleted meanwhile
            yield told


def event(db: sqlite3.Connection, seq: int, odd: Odd = refuse) -> Facts | None:
    """Tell one event, and how each handler stands with it; None if it is not there."""
    row = db.execute(f"SELECT {_FACTS} FROM event WHERE seq = ?", (seq,)).fetchone()  # noqa: S608 - our own words
    if row is None:
        return None
    _, received_at, feed, device, call, redelivered, wanted, payload = row
    states = db.execute(_STATES, {"seq": seq, "device": device or "", "wanted": wanted})
    name = f"event {seq}"
    return {
        "seq": seq,
        "receivedAt": _time(odd, received_at, name),
        "feed": rows.legible(feed),
        "device": rows.legible(device),
        "callId": rows.legible(call),
        "redelivered": bool(redelivered),
        "handlers": {rows.legible(one): stands for one, stands in states},
        "event": sound(odd, rows.payload_of, payload, name),
    }


def gaps(db: sqlite3.Connection, odd: Odd = refuse) -> Iterator[Facts]:
    """Tell every gap, oldest first, as the command line prints it."""
    for row in db.execute("SELECT id, body FROM gap ORDER BY id").fetchall():
        gap: Gap | None = sound(odd, gap_rows.gap_of, *row)
        if gap is not None:
            yield gap.as_wire()


def dead(db: sqlite3.Connection, numbers: Sequence[int] = (), odd: Odd = refuse) -> Iterator[Facts]:
    """Tell the dead letters, or these of them."""
    query = (
        "SELECT dead.id, handler.name, seq, failed_at, retry, device, call,"
        " CAST(payload AS BLOB), error"
        " FROM dead LEFT JOIN handler ON handler.id = dead.handler ORDER BY dead.id"
    )
    for number, handler, seq, failed_at, retry, device, call, payload, error in db.execute(query):
        if not numbers or number in numbers:
            name = f"dead letter {number}"
            yield {
                "id": number,
                "handler": rows.legible(handler),
                "seq": seq,
                "failedAt": _time(odd, failed_at, name),
                "toBeRetried": bool(retry),
                "device": rows.legible(device),
                "callId": rows.legible(call),
                "event": sound(odd, rows.payload_of, payload, name),
                "error": rows.legible(error),
            }


def retry(
    db: sqlite3.Connection, *, numbers: Sequence[int] = (), handler: str | None = None
) -> int:
    """Ask for dead letters to be tried once more; return how many.

    Args:
        db: The journal, open to write.
        numbers: These; none: all.
        handler: Only this handler's.

    Raises:
        ConfigurationError: One of them is not there; none is retried then.
    """
    owner = None if handler is None else handler_number(db, handler)
    query = "SELECT id FROM dead WHERE :handler IS NULL OR handler = :handler"
    known = {one for (one,) in db.execute(query, {"handler": owner})}
    for number in numbers:
        if number not in known:
            raise ConfigurationError(str(number), "is no dead letter; see `journal dead`")
    chosen = set(numbers) or known
    with _transaction(db):
        for number in chosen:
            db.execute("UPDATE dead SET retry = 1 WHERE id = ?", (number,))
    return len(chosen)


def forget(db: sqlite3.Connection, path: Path, name: str, odd: Odd = refuse) -> Facts:
    """Drop a handler with its unfinished events and dead letters; tell how many those were.

    Raises:
        ConfigurationError: There is no such handler, or a listener runs it now.
    """
    number = handler_number(db, name)
    row = db.execute("SELECT * FROM handler WHERE id = ?", (number,)).fetchone()
    told = _handler(db, odd, *row)  # may take seconds, for which no listener should wait
    with _transaction(db):
        # Not before: a listener that starts registers its handlers in a transaction of its own, and
        # goes by their numbers from then on.
        active = db.execute("SELECT 1 FROM handler WHERE id = ? AND active", (number,)).fetchone()
        if active and lock.in_use(path):
            raise ConfigurationError(name, "is in use by the listener that runs; stop it first")
        for table in ("member", "mark", "dead"):
            db.execute(f"DELETE FROM {table} WHERE handler = ?", (number,))  # noqa: S608 - our own words
        db.execute("DELETE FROM handler WHERE id = ?", (number,))
    return told


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _time(odd: Odd, stamp: Any, *row: str) -> str | None:
    at = None if stamp is None else sound(odd, rows.time_of, stamp, *row)
    return None if at is None else _told(at)


def _told(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
