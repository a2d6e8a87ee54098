"""Rows: how entries and gaps stand in the tables, and many of them in one statement.

`executemany` hands the interpreter's lock over once a row, and each time another thread may keep it
for milliseconds; one statement of many rows hands it over once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from cti_listener.events import load_json
from cti_listener.journal.base import OURS, Entry
from cti_listener.notices import Gap
from cti_listener.values import EventKey

EVENT_COLUMNS: Final = "digest, received_at, device, call, feed, wanted, late, payload"
"""An event's columns in the order in which the loop hands them over."""

WANTED: Final = 5
"""Which of these is `wanted`; the loop puts the handlers' names there, the writer their number."""

PAYLOAD: Final = 7

ENTRY_COLUMNS: Final = "seq, device, call, received_at, feed, redelivered, late, payload"
"""What `entry_of` is built from."""

LAST_SEQ: Final = "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event')"
"""The newest event's number; it never falls back, whatever is deleted."""

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
    """Return the text that was made storable; None stays None."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def stamp(time: datetime) -> float:
    """Return a time as it is stored."""
    return time.timestamp()


def time_of(stamp: float) -> datetime:
    """Return a stored time, aware, in UTC."""
    return datetime.fromtimestamp(stamp, UTC)


def entry_of(row: Sequence[Any], redelivered_up_to: int) -> Entry:
    """Build an entry of `ENTRY_COLUMNS`."""
    seq, device, call, received_at, feed, redelivered, late, payload = row
    return Entry(
        device=text_of(device),
        call=text_of(call),
        received_at=time_of(received_at),
        feed=feed,
        payload=load_json(payload),
        seq=seq,
        redelivered=bool(redelivered) or seq <= redelivered_up_to,
        late=bool(late),
        repeated=bool(redelivered),
    )


def last_payload(db: sqlite3.Connection) -> dict[str, Any] | None:
    """Return the event that came last, of those still there, as it was received."""
    row = db.execute(
        "SELECT payload FROM event WHERE NOT redelivered AND feed <> ? ORDER BY seq DESC LIMIT 1",
        (OURS,),
    ).fetchone()
    return None if row is None else load_json(row[0])


def gap_body(gap: Gap) -> str:
    """Write a gap's fields as JSON."""
    return json.dumps({one.name: _plain(getattr(gap, one.name)) for one in fields(Gap)})


def gap_of(body: str) -> Gap:
    """Read a gap back; a field that this version lacks is left out."""
    known = {one.name for one in fields(Gap)}
    said = {name: value for name, value in json.loads(body).items() if name in known}
    for name, value in said.items():
        if value is None:
            continue
        if name in {"at", "since", "until"}:
            said[name] = datetime.fromisoformat(value)
        elif name == "devices":
            said[name] = frozenset(value)
        elif name in {"last_before", "first_after"}:
            said[name] = EventKey(*value)
    return Gap(**said)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case frozenset():
            return sorted(value)
        case _:
            return value  # an EventKey is a tuple, and so a list


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
