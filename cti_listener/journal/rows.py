"""Rows: how entries stand in the tables, and many of them in one statement.

Whatever a row holds, here it becomes a value, an `Unreadable`, or a `DamagedError` that names it; a
gap does in `gap_rows`.

`executemany` hands the interpreter's lock over once a row, and each time another thread may keep it
for milliseconds; one statement of many rows hands it over once.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from cti_listener.errors import BadMessageError
from cti_listener.events import load_object
from cti_listener.journal.base import OURS, DamagedError, Entry, Unreadable
from cti_listener.values import EventKey, identity, routing_key

EVENT_COLUMNS: Final = "received_at, device, call, feed, wanted, late, payload"
"""An event's columns in the order in which the loop hands them over."""

WANTED: Final = 4
"""Which of these is `wanted`; the loop puts the handlers' names there, the writer their number."""

PAYLOAD: Final = 6

ENTRY_COLUMNS: Final = (
    "seq, device, call, received_at, feed, redelivered, late, CAST(payload AS BLOB)"
)
"""What `entry_of` is built from; the payload as bytes, for its text may be no UTF-8 any more."""

LATEST: Final = 1000
"""So many events of a run before show how far the server's counters had come."""

LAST_SEQ: Final = "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event')"
"""The newest event's number; it never falls back, whatever is deleted."""

_NO_TIME: Final = (TypeError, ValueError, OverflowError, OSError)
"""How a number that is no time fails, or a text."""

_LAST: Final = 2**63 - 1
_MOST: Final = 1024
"""How many rows a statement has at most; each of its variables costs memory for ever."""

_to_ascii: Final = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class Insert(NamedTuple):
    """A statement that inserts many rows.

    Attributes:
        head: Up to the source of the rows, whose columns are `column1` and so on.
        columns: How many of these there are; the first is never NULL.
        tail: What comes behind.
    """

    head: str
    columns: int
    tail: str = ""


def insert_many(
    db: sqlite3.Connection, insert: Insert, flat: list[Any], first: Sequence[Any] = ()
) -> int | None:
    """Insert rows that stand one after the other in `flat`; return the last one's number.

    Args:
        db: Where.
        insert: How.
        flat: All columns.
        first: What the statement's head asks for.
    """
    number = None
    columns = insert.columns
    most = min(_MOST, db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // columns)
    for at in range(0, len(flat), most * columns):
        some = [*first, *flat[at : at + most * columns]]
        rows = (len(some) - len(first)) // columns
        width = min(most, _width(rows))
        some += [None] * ((width - rows) * columns)
        statement = _statement(insert, width)
        try:
            number = db.execute(statement, some).lastrowid
        except UnicodeEncodeError:  # a lone surrogate, in the name of a device or call
            number = db.execute(statement, [storable(one) for one in some]).lastrowid
    return number


def _width(rows: int) -> int:
    """Return for how many rows a statement is used for so many; few, so each is compiled once."""
    double = 1 << (rows - 1).bit_length()
    half_more = double * 3 // 4
    return half_more if half_more >= rows else double


@cache
def _statement(insert: Insert, width: int) -> str:
    row = f"({', '.join('?' * insert.columns)})"
    rows = ", ".join([row] * width)
    return f"{insert.head} FROM (VALUES {rows}) WHERE column1 IS NOT NULL {insert.tail}"


def encode(payload: dict[str, Any]) -> bytes | str:
    """Write a payload as JSON that `load_json` reads as the same object."""
    try:
        return to_json(payload, inf_nan_mode="constants")
    except ValueError:  # a lone surrogate, which has no UTF-8, or deeply nested
        return _to_ascii(payload)


def storable(value: Any) -> Any:
    """Return what SQLite can keep: a text with a lone surrogate has no UTF-8 and goes as bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value


def text_of(stored: Any) -> Any:
    """Return the text that was made storable; None stays None.

    Raises:
        UnicodeDecodeError: It is none.
    """
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def legible(stored: Any) -> Any:
    """Return a text as well as it can be read; None stays None."""
    try:
        return text_of(stored)
    except UnicodeDecodeError:
        return stored.decode(errors="backslashreplace")


def stamp(time: datetime) -> float:
    """Return a time as it is stored."""
    return time.timestamp()


def when(stamp: Any) -> datetime | None:
    """Return a stored time, aware, in UTC; None if it is none."""
    try:
        return datetime.fromtimestamp(stamp, UTC)
    except _NO_TIME:
        return None


def time_of(stamp: Any, row: str, name: str = "time") -> datetime:
    """Return a stored time, aware, in UTC.

    Args:
        stamp: As it is stored.
        row: Which row's.
        name: Which of its times.

    Raises:
        DamagedError: It is none.
    """
    at = when(stamp)
    if at is None:
        raise DamagedError(row, f"its {name} {stamp!r:.50} cannot be")
    return at


def payload_of(
    payload: bytes | str, row: str, read: Callable[[Any], Any] = load_object
) -> dict[str, Any]:
    """Return a stored payload.

    Args:
        payload: As it is stored.
        row: Which row's.
        read: Reads JSON.

    Raises:
        DamagedError: It cannot be read.
    """
    try:
        return load_object(read(payload))
    except (BadMessageError, ValueError, RecursionError) as error:
        raise DamagedError(row, f"its payload cannot be read ({error})") from error


def entry_of(row: Sequence[Any], redelivered_up_to: int) -> Entry | Unreadable:
    """Build an entry of `ENTRY_COLUMNS`."""
    seq, device, call, received_at, feed, redelivered, late, payload = row
    try:
        return Entry(
            device=text_of(device),
            call=text_of(call),
            received_at=datetime.fromtimestamp(received_at, UTC),
            feed=text_of(feed),
            payload=load_object(payload),
            seq=seq,
            redelivered=bool(redelivered) or seq <= redelivered_up_to,
            late=bool(late),
            repeated=bool(redelivered),
        )
    except (BadMessageError, *_NO_TIME) as error:  # no text is a ValueError as well
        return Unreadable(seq, f"the row cannot be read: {error}")


def latest(db: sqlite3.Connection) -> list[tuple[EventKey, datetime]]:
    """Return which events came last, of those still there, and when, oldest first."""
    query = (
        f"SELECT {ENTRY_COLUMNS} FROM event WHERE NOT redelivered AND feed <> ?"  # noqa: S608 - our own words
        " ORDER BY seq DESC LIMIT ?"
    )
    found = [entry_of(row, 0) for row in db.execute(query, (OURS, LATEST))]
    return [
        (EventKey(*identity(one.payload, one.device)), one.received_at)
        for one in reversed(found)
        if isinstance(one, Entry)
    ]


def seen(db: sqlite3.Connection, first: int, most: int) -> array[int]:
    """Return the hashes of the identities of the latest events, newest last.

    They are told anew from the payloads at each start, 2 us each, so that an event on its way pays
    for no digest that all processes would share. What cannot be read is left out.

    Args:
        db: The journal.
        first: From which row on.
        most: So many at most.
    """
    hashes = array("q")
    for stored in _payloads(db, first, most):
        with suppress(BadMessageError):
            payload = load_object(stored)
            hashes.append(hash(identity(payload, routing_key(payload))))
    hashes.reverse()
    return hashes


def _payloads(db: sqlite3.Connection, first: int, most: int) -> Iterator[bytes]:
    """Yield the payloads of the latest events, newest first; a damaged page takes only its own."""
    wanted = "FROM event WHERE seq >= ? AND feed <> ? ORDER BY seq DESC LIMIT ?"
    parameters = first, OURS, most
    payload = "SELECT CAST(payload AS BLOB)"
    left = 0
    try:
        for (stored,) in db.execute(f"{payload} {wanted}", parameters):
            left += 1
            yield stored
    except sqlite3.DatabaseError:
        for (seq,) in db.execute(f"SELECT seq {wanted}", parameters).fetchall()[left:]:
            with suppress(sqlite3.DatabaseError):
                yield db.execute(f"{payload} FROM event WHERE seq = ?", (seq,)).fetchone()[0]


class State(NamedTuple):
    """What the journal says of itself."""

    last_sign: datetime | None
    tracked: bytes | None
    tracked_seq: int
    identity: str


def state_of(db: sqlite3.Connection) -> State:
    """Return what the journal says of itself.

    Raises:
        DamagedError: It cannot be read.
    """
    name = "the state"
    row = db.execute("SELECT last_sign, tracked, tracked_seq, identity FROM state").fetchone()
    if row is None:
        raise DamagedError(name, "there is none")
    last_sign, tracked, tracked_seq, identity = row
    if not isinstance(identity, str):
        raise DamagedError(name, f"its identity {identity!r:.50} cannot be")
    if not isinstance(tracked_seq, int | None):
        raise DamagedError(name, f"its tracked_seq {tracked_seq!r:.50} cannot be")
    return State(
        None if last_sign is None else time_of(last_sign, name, "last_sign"),
        tracked,
        tracked_seq or 0,
        identity,
    )


def queues_of(db: sqlite3.Connection) -> dict[str, datetime]:
    """Return when each queue of a broker was known to be empty.

    Raises:
        DamagedError: One of these times cannot be.
    """
    found = db.execute("SELECT name, emptied FROM queue")
    return {name: time_of(at, f"queue {name!r}") for name, at in found}


def seats_of(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Return where each asked agent sits, and since when.

    Raises:
        DamagedError: One of these cannot be.
    """
    seats: dict[str, tuple[str, str]] = {}
    for stored in db.execute("SELECT agent, device, since FROM seat"):
        try:
            agent, device, since = map(text_of, stored)
        except UnicodeDecodeError:
            name, *seat = map(legible, stored)
            raise DamagedError(f"the seat of {name!r:.50}", f"{seat!r:.100} cannot be") from None
        seats[agent] = device, since
    return seats


_ODD_BOOKS: Final = f"""
    SELECT 'handler ' || quote(name), 'its name' FROM handler WHERE typeof(name) <> 'text'
    UNION ALL
    SELECT 'handler ' || quote(name), 'its floor ' || quote(floor) FROM handler
    WHERE typeof(floor) <> 'integer' OR floor NOT BETWEEN 0 AND {LAST_SEQ}
    UNION ALL
    SELECT 'the mark of ' || quote(device), 'its number ' || quote(seq) FROM mark
    WHERE typeof(seq) <> 'integer' OR seq NOT BETWEEN 0 AND {LAST_SEQ}
"""  # noqa: S608 - our own words


def odd_books(db: sqlite3.Connection) -> Iterator[DamagedError]:
    """Find what says how far the handlers are and cannot be: by it, events would be passed over."""
    for row, what in db.execute(_ODD_BOOKS):
        yield DamagedError(row, f"{what} cannot be")


def undone(columns: str) -> str:
    """Return the query of what a handler has yet to do, oldest first.

    A row is done when it is not above the handler's floor, or not above the mark of its device.

    Args:
        columns: What to select, of `event`.

    Returns:
        SQL, to be asked with what `undone_between()` returns.
    """
    qualified = ", ".join(f"event.{name}" for name in columns.split(", "))
    return f"""
        SELECT {qualified} FROM event
        LEFT JOIN mark ON mark.handler = :handler AND mark.device = coalesce(event.device, '')
        WHERE event.seq > max(:after, (SELECT floor FROM handler WHERE id = :handler))
        AND event.seq <= :until
        AND event.seq > coalesce(mark.seq, 0)
        AND event.wanted IN (SELECT wanted FROM member WHERE handler = :handler)
        ORDER BY event.seq LIMIT :limit
    """  # noqa: S608 - of our own words


UNDONE_BY_ANY: Final = """
    EXISTS (
        SELECT 1 FROM member JOIN handler ON handler.id = member.handler
        WHERE member.wanted = event.wanted AND event.seq > handler.floor AND event.seq > coalesce(
            (SELECT seq FROM mark WHERE mark.handler = member.handler
             AND mark.device = coalesce(event.device, '')), 0))
"""
"""Whether some handler, registered or not, has yet to do an event."""


def undone_between(
    handler: int, *, after: int = 0, until: int = _LAST, limit: int = -1
) -> dict[str, int]:
    """Return the parameters of `undone()`: which handler, and which rows."""
    return {"handler": handler, "after": after, "until": until, "limit": limit}
