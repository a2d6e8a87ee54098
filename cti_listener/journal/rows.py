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
from typing import Any, Final

from cti_listener.journal.base import NO_DEVICE, Entry
from cti_listener.notices import Gap
from cti_listener.values import EventKey

encode: Final = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
"""A payload to text. ASCII only, so that a lone surrogate is text as well."""

EVENT_COLUMNS: Final = (
    "seq, digest, device, call, received_at, feed, wanted, redelivered, late, payload"
)
_LAST: Final = 2**63 - 1
_WIDTHS: Final = (256, 64, 16, 4, 1)
"""Statements of so many rows: few, so that each is compiled once."""


def insert_many(
    db: sqlite3.Connection, head: str, columns: int, flat: list[Any], tail: str = ""
) -> None:
    """Insert rows that stand one after the other in `flat`."""
    at, left = 0, len(flat) // columns
    for width in _WIDTHS:
        while left >= width:
            until = at + width * columns
            db.execute(_statement(head, columns, width, tail), flat[at:until])
            at, left = until, left - width


@cache
def _statement(head: str, columns: int, rows: int, tail: str) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{head} VALUES {', '.join([row] * rows)} {tail}"


def stamp(time: datetime) -> float:
    """Return a time as it is stored."""
    return time.timestamp()


def time_of(stamp: float) -> datetime:
    """Return a stored time, aware, in UTC."""
    return datetime.fromtimestamp(stamp, UTC)


def entry_of(row: Sequence[Any], owed: tuple[str, ...], redelivered_up_to: int) -> Entry:
    """Build an entry of `EVENT_COLUMNS`."""
    seq, digest, device, call, received_at, feed, _, redelivered, late, payload = row
    return Entry(
        digest=digest,
        device=device,
        call=call,
        received_at=time_of(received_at),
        feed=feed,
        payload=json.loads(payload),
        owed=owed,
        seq=seq,
        redelivered=bool(redelivered) or seq <= redelivered_up_to,
        late=bool(late),
    )


def last_payload(db: sqlite3.Connection) -> dict[str, Any] | None:
    """Return the newest event there is, as it was received."""
    row = db.execute("SELECT payload FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else json.loads(row[0])


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


def undone(device: str | None, columns: str) -> str:
    """Return the query of what a handler has yet to do, oldest first.

    A row is done when it is not above the handler's floor, or not above the mark of its device.

    Args:
        device: One lane's, or None: all of them.
        columns: What to select, of `event`.

    Returns:
        SQL, to be asked with what `undone_between()` returns.
    """
    lane = {None: "TRUE", NO_DEVICE: "event.device IS NULL"}.get(device, "event.device = :device")
    qualified = ", ".join(f"event.{name}" for name in columns.split(", "))
    return f"""
        SELECT {qualified} FROM event
        LEFT JOIN mark ON mark.handler = :handler AND mark.device = coalesce(event.device, '')
        WHERE {lane} AND event.seq > :after AND event.seq <= :until
        AND event.seq > coalesce(mark.seq, 0)
        AND event.wanted IN (SELECT wanted FROM member WHERE handler = :handler)
        AND event.seq > (SELECT floor FROM handler WHERE id = :handler)
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
    handler: int, *, after: int = 0, until: int = _LAST, limit: int = -1, device: str | None = None
) -> dict[str, Any]:
    """Return the parameters of `undone()`: which handler, and which rows."""
    return {"handler": handler, "after": after, "until": until, "limit": limit, "device": device}
