"""What trackers remember, as plain values, so that the journal can keep it, and back again.

Times are ISO 8601 on disk. Several may know a leg: it is kept once, and they keep its number.
What its record came to is made anew from its facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from cti_listener.trackers.facts import Fact, Moment
from cti_listener.trackers.legs import Leg
from cti_listener.values import EventKey

_KEPT: Final = tuple(name for name in Leg.__slots__ if name != "substance")
_TIMES: Final = ("sign", "expired")
_MOMENTS: Final = ("allocated", "hung_up")
_TUPLES: Final = ("former", "consults", "handed")


class Numbers:
    """Numbers legs, each once.

    Attributes:
        legs: Those that have a number, in order, as plain values.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.legs: list[dict[str, Any]] = []
        self._known: dict[Leg, int] = {}

    def __call__(self, leg: Leg) -> int:
        """Return a leg's number."""
        known = self._known.get(leg)
        if known is None:
            known = self._known[leg] = len(self.legs)
            self.legs.append(plain_leg(leg))
        return known


def plain_leg(leg: Leg) -> dict[str, Any]:
    """Return what a leg knows."""
    return {name: getattr(leg, name) for name in _KEPT}


def leg_of(kept: dict[str, Any]) -> Leg:
    """Return the leg that knew this.

    Raises:
        KeyError, ValueError, TypeError: It was no leg's.
    """
    leg = Leg(kept["device"], kept["call"], kept["namespace"], kept["epoch"])
    for name in _KEPT:
        value = kept[name]
        if name in _TUPLES and value is not None:
            value = tuple(value)
        setattr(leg, name, read_time(value) if name in _TIMES and value else value)
    leg.facts = [_fact_of(one) for one in kept["facts"]]
    leg.latest = None if kept["latest"] is None else _fact_of(kept["latest"])
    for name in _MOMENTS:
        if kept[name] is not None:
            setattr(leg, name, read_moment(kept[name]))
    if leg.wrap_up is not None:
        seconds, keys = kept["wrap_up"]
        leg.wrap_up = seconds, read_keys(keys)
    if leg.merged_into is not None:
        leg.merged_into = kept["merged_into"][0], datetime.fromisoformat(kept["merged_into"][1])
    return leg


def read_time(kept: str) -> datetime:
    """Return a time that was kept."""
    return datetime.fromisoformat(kept)


def read_keys(kept: Sequence[Any]) -> tuple[EventKey, ...]:
    """Return keys of events that were kept."""
    return tuple([EventKey(*one) for one in kept])


def read_moment(kept: Sequence[Any]) -> Moment:
    """Return a moment that was kept."""
    time, serial = kept
    return read_time(time), serial


def _fact_of(kept: list[Any]) -> Fact:
    time, serial, step, party, said, known_by, call = kept
    if isinstance(known_by, list):
        known_by = EventKey(*known_by)
    return datetime.fromisoformat(time), serial, step, party, tuple(said), known_by, call
