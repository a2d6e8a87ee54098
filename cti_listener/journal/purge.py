"""Purge: erase a person's calls from the journal, while a listener may be writing it.

A row goes when it names the number anywhere, or belongs to a call that the number made or took. A
number that is longer than an extension's is found within other texts too, as in `tel:` addresses
and the names of recordings.
SQLite leaves old bytes in the unused parts of pages wherever it moved a row, also with
`secure_delete`; so the file is written anew (`rewriting`). A listener that runs waits meanwhile,
some seconds for a GiB.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from cti_listener.journal import gap_rows, rows
from cti_listener.journal.base import explained
from cti_listener.journal.rewriting import rewrite
from cti_listener.journal.visits import Odd, refuse, sound
from cti_listener.notices import Gap
from cti_listener.values import EventKey, canonical_id

_CHUNK: Final = 200

_REPEATED: Final = "\0repeated"
"""Under what name the values of names that stand twice are searched."""

_PARTIES: Final = ("callingDevice", "calledDevice")

_LONG: Final = 7
"""Of so many digits, a number is a person's, and not an extension or part of anything else."""

_PREFIX: Final = 4
"""So many digits may stand before it: a country's code, or what dials out."""

_DIGITS: Final = re.compile(r"\d+", re.ASCII)

_DIALLED: Final = re.compile(r"\+?[*#]*[0-9][0-9*#]*")
"""A number as servers write it, without a domain."""

_BETWEEN: Final = re.compile(r"[()\[\]\u2010-\u2015\u2212-]")
"""What people put between the digits of a number, besides spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What was erased, or would be.

    Attributes:
        number: Of which number, as it was looked for.
        events: How many events.
        calls: Of how many calls.
        dead: How many dead letters.
        gaps: How many gaps named such an event as their last before or first after.
        overwritten: Nothing of it is left in the files; False: somebody was in the way, or the file
            too large to be written anew while a listener waits, or `problem` says why.
        problem: Why the file could not be written anew.
        copies: Copies from before a migration, which are not touched.
    """

    number: str
    events: int
    calls: int
    dead: int
    gaps: int
    overwritten: bool
    problem: str | None
    copies: tuple[str, ...]


def purge(
    db: sqlite3.Connection, path: Path, number: str, *, dry: bool = False, odd: Odd = refuse
) -> Purged:
    """Erase every trace of a number; a gap that cannot be read is left as it is.

    Args:
        db: The journal, open to write.
        path: Its file.
        number: As `13800138000` or `+8613800138000`, with any domain, or with its own, as
            `13800138000@zhen04.cc`; see `plain_number`.
        dry: Only count.
        odd: Told of what cannot be read.
    """
    db.execute("PRAGMA secure_delete = ON")
    (last,) = db.execute(f"SELECT {rows.LAST_SEQ}").fetchone()
    naming, calls = _find(db, number, odd)
    events = sorted(naming | _of_calls(db, calls))
    letters = list(_letters(db, number, calls, odd))
    bodies = list(_gaps(db, number, calls, odd))
    query = "SELECT agent, device FROM seat"
    seats = [agent for agent, device in db.execute(query) if names([agent, device], number)]
    if not dry:
        # In small transactions: the listener waits for each.
        _delete(db, "event", "seq", events)
        _delete_marks(db, number, last)
        _delete(db, "dead", "id", letters)
        _delete(db, "seat", "agent", seats)
        for gap, body in bodies:
            db.execute("UPDATE gap SET body = ? WHERE id = ?", (body, gap))
        db.execute("UPDATE state SET tracked = NULL, tracked_seq = NULL")  # of calls in progress
    overwritten, problem = (False, None) if dry else _overwrite(db, path)
    return Purged(
        number=_spellings(number)[-1],
        events=len(events),
        calls=len(calls),
        dead=len(letters),
        gaps=len(bodies),
        overwritten=overwritten,
        problem=problem,
        copies=tuple(sorted(str(one) for one in path.parent.glob(f"{path.name}.v*"))),
    )


def plain_number(given: str) -> str | None:
    """Return a number as servers write it: `13800138000` of `138-0013-8000`; None if it is none.

    An id with its domain may hold letters, and dashes unless it is as long as a person's number.
    Without one, what holds letters may be the domain itself or a word that every event says.
    """
    number = re.sub(r"\s", "", unicodedata.normalize("NFKC", given))
    name, *domains = number.split("@")
    digits = _BETWEEN.sub("", name)
    if _DIALLED.fullmatch(digits) and len(digits) >= _LONG:
        name = digits
    told = re.search(r"\w", name) if domains else _DIALLED.fullmatch(name)
    return "@".join((name, *domains)) if told and all(domains) else None


def names(value: object, number: str) -> bool:
    """Tell whether the number stands anywhere in a value off the wire, as a device or a part."""
    match value:
        case str():  # in parts, as in `8002@zhen04.cc|call`
            return any(_is(part, number) for part in value.split("|")) or _holds(value, number)
        case dict():
            return any(
                names(key, number) or names(str(one) if _is_device(key, one) else one, number)
                for key, one in value.items()
                if key != "serial"  # a counter comes by every number
            )
        case list():
            return any(names(one, number) for one in value)
        case int() | float():
            return _holds(str(value), number)
        case _:
            return False


def quotes(text: str, number: str) -> bool:
    """Tell whether a traceback may quote a number; an extension's is no part of another word."""
    for one in _spellings(number):
        digits = one.removeprefix("+")
        edge = r"\b" if len(digits) < _LONG else ""
        if re.search(f"{edge}{re.escape(digits)}{edge}", text):
            return True
    return False


@lru_cache(maxsize=8)
def _spellings(number: str) -> tuple[str, ...]:
    """Return a number as it was given, for it may be stored so, and last as servers write it."""
    return tuple(dict.fromkeys((number, plain_number(number) or number)))


def _holds(text: str, number: str) -> bool:
    """Tell whether a long number stands within a text, by its end."""
    digits = _spellings(number)[-1].removeprefix("+")
    if len(digits) < _LONG or not digits.isdecimal():
        return False
    room = len(digits) + _PREFIX
    return any(run.endswith(digits) and len(run) <= room for run in _DIGITS.findall(text))


def _is(text: str, number: str) -> bool:
    user, at, _ = text.partition("@")
    if at and "@" in number:
        return canonical_id(text) in map(canonical_id, _spellings(number))
    return user in (one.partition("@")[0] for one in _spellings(number))


def _is_device(key: str, value: object) -> bool:
    """Tell whether a number stands where a device's text was due."""
    return key.endswith("Device") and isinstance(value, int | float)


def _names(payload: str, number: str, row: str, odd: Odd) -> tuple[bool, dict[str, Any]]:
    """Tell whether a payload names the number, by its text if it cannot be read; and what it says.

    All that it says: of a name that stands twice, the first value too.
    """
    read = partial(json.loads, object_pairs_hook=_with_repeated)
    said: dict[str, Any] | None = sound(odd, rows.payload_of, payload, row, read)
    if said is None:
        return quotes(rows.legible(payload), number.partition("@")[0]), {}
    return names(said, number), said


def _with_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    said = dict(pairs)
    if len(said) < len(pairs):
        said[_REPEATED] = [{name: value} for name, value in pairs]
    return said


def _find(db: sqlite3.Connection, number: str, odd: Odd) -> tuple[set[int], set[str]]:
    """Return the events that name the number, and the calls it was a party of."""
    naming: set[int] = set()
    calls: set[str] = set()
    for table, key, what in (("event", "seq", "event"), ("dead", "id", "dead letter")):
        for row, call, device, payload in _read(db, f"{key}, call, device, payload", table, key):
            named, said = _names(payload, number, f"{what} {row}", odd)
            if not named and not names(rows.legible(device), number):
                continue
            if table == "event":
                naming.add(row)
            if call is not None and any(names({one: said.get(one)}, number) for one in _PARTIES):
                calls.add(call)
    return naming, calls


def _read(db: sqlite3.Connection, columns: str, table: str, key: str) -> Iterator[Any]:
    """Read a table in pieces, so that no reader stands in the listener's way for long."""
    after = 0
    query = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"  # noqa: S608 - our own words
    while found := db.execute(query, (after, _CHUNK)).fetchall():
        yield from found
        after = found[-1][0]


def _of_calls(db: sqlite3.Connection, calls: set[str]) -> set[int]:
    query = "SELECT seq FROM event WHERE call = ?"
    return {seq for call in calls for (seq,) in db.execute(query, (call,))}


def _letters(db: sqlite3.Connection, number: str, calls: set[str], odd: Odd) -> Iterator[int]:
    bare = number.partition("@")[0]
    columns = "id, call, device, payload, error"
    for row, call, device, payload, error in _read(db, columns, "dead", "id"):
        quoted = call in calls or quotes(rows.legible(error), bare)
        if (
            quoted
            or names(rows.legible(device), number)
            or _names(payload, number, f"dead letter {row}", odd)[0]
        ):
            yield row


def _gaps(
    db: sqlite3.Connection, number: str, calls: set[str], odd: Odd
) -> Iterator[tuple[int, str]]:
    """Return the gaps that name such an event, without its name."""

    def clean(key: EventKey | None) -> EventKey | None:
        gone = key is not None and (key.call_id in calls or names(key.device, number))
        return None if gone else key

    for row, body in _read(db, "id, body", "gap", "id"):
        gap: Gap | None = sound(odd, gap_rows.gap_of, row, body)
        if gap is None:
            continue
        cleaned = replace(
            gap, last_before=clean(gap.last_before), first_after=clean(gap.first_after)
        )
        if cleaned != gap:
            yield row, gap_rows.gap_body(cleaned)


def _delete(db: sqlite3.Connection, table: str, key: str, keys: Sequence[int | str]) -> None:
    for at in range(0, len(keys), _CHUNK):
        chunk = keys[at : at + _CHUNK]
        db.execute(
            f"DELETE FROM {table} WHERE {key} IN ({', '.join('?' * len(chunk))})",  # noqa: S608 - our own words
            chunk,
        )


def _delete_marks(db: sqlite3.Connection, number: str, last: int) -> None:
    """Delete how far the number's own lanes are; its events up to `last` are gone."""
    found = db.execute("SELECT handler, device FROM mark").fetchall()
    for handler, device in found:
        if names(rows.legible(device), number):
            db.execute(
                "DELETE FROM mark WHERE handler = ? AND device = ? AND seq <= ?",
                (handler, device, last),  # what came since was not looked for
            )


def _overwrite(db: sqlite3.Connection, path: Path) -> tuple[bool, str | None]:
    """Write the file anew; return whether nothing is left in it, and why it could not be."""
    try:
        return rewrite(db, path), None
    except sqlite3.Error as error:
        return False, explained(path, error).problem
