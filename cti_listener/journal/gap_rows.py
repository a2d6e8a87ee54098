"""Gaps as rows: their fields in JSON, and whatever stands there read back or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from cti_listener.journal.base import DamagedError
from cti_listener.notices import Gap
from cti_listener.values import EventKey


def gap_body(gap: Gap) -> str:
    """Write a gap's fields as JSON."""
    return json.dumps({one.name: _plain(getattr(gap, one.name)) for one in fields(Gap)})


def gap_of(number: int, body: str) -> Gap:
    """Read a gap back; a field that this version lacks is left out.

    Args:
        number: Its id.
        body: Its fields.

    Raises:
        DamagedError: It cannot be read.
    """
    try:
        said = json.loads(body)
        gap = Gap(**{name: _FIELDS[name](said[name]) for name in _FIELDS.keys() & said.keys()})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"gap {number}", f"its body cannot be read ({error})") from error
    if gap.id != number:
        raise DamagedError(f"gap {number}", f"its body is that of gap {gap.id}")
    return gap


def without_erased(gap: Gap, kept: str) -> Gap:
    """Return a gap without its last event before, if what is kept of it lacks that.

    It is known from a gap's beginning: only a purge takes it away.

    Args:
        gap: What became of it.
        kept: Its fields so far.
    """
    try:
        erased = gap_of(gap.id, kept).last_before is None
    except DamagedError:
        return gap
    return replace(gap, last_before=None) if erased else gap


def _be(kind: Any) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r:.50}")
        return value

    return checked


def _instant(value: Any) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError(value)
    return at


def _key(value: Any) -> EventKey | None:
    return None if value is None else EventKey(*map(_be(str | int | float | None), value))


_FIELDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "at": _instant,
    "id": _be(int),
    "since": _instant,
    "until": lambda value: None if value is None else _instant(value),
    "reason": _be(str),
    "devices": lambda value: frozenset(map(_be(str), _be(list)(value))),
    "destination": _be(str | None),
    "recovered": _be(bool),
    "last_before": _key,
    "first_after": _key,
}
"""How each field of a gap is read."""


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case frozenset():
            return sorted(value)
        case _:
            return value  # an EventKey is a tuple, and so a list
