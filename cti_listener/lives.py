"""The lives of feeds: what tells how far each had come, in what the server told.

Feeds are measured by these: in `sightings`, and where one comes back or is lost, in `feeds`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple

from cti_listener.values import seconds_between

WINDOW: Final = 10.0
"""By no more than this, in seconds, is a feed taken to be behind."""

SURE: Final = 5
"""After so many of another's events, one behind the other, a feed has come as far as that.

One is not enough: it may be an old event that the server repeated to the other.
"""

FIRSTS: Final = 3
"""By so many events of each kind it is told where a feed began."""

KINDS: Final = 100
"""So many counters are told apart in that; there are two in each namespace."""

FAR: Final = 60.0
"""By no more than that, in seconds, does what is followed here differ on a clock that goes on."""


class Told(NamedTuple):
    """When and as what number the server told an event; each kind is counted on its own.

    Attributes:
        time: As received; only compared, and equal for a whole second.
        kind: The counter: the namespace, and `agent` or `csta`.
        serial: The number.
    """

    time: Any
    kind: Any
    serial: Any

    def precedes(self, other: Told) -> bool:
        """Tell whether the server surely told this one before the other."""
        mine, theirs = self.time, other.time
        alike = type(mine) is type(theirs) is str and len(mine) == len(theirs)
        if alike and mine != theirs:  # of unlike ones, one is no time
            return bool(mine < theirs)
        if self.kind != other.kind:
            return False
        number, after = self.serial, other.serial
        return isinstance(number, int) and isinstance(after, int) and number < after

    def is_far_from(self, other: Told) -> bool:
        """Tell whether so much lies between them that the server's clock was set in between."""
        if not (isinstance(self.time, str) and isinstance(other.time, str)):
            return False
        apart = seconds_between(self.time, other.time)
        return apart is not None and abs(apart) > FAR

    def is_passed_by(self, other: Told) -> bool:
        """Tell whether another of its kind says more of how far the server had come."""
        if self.time == other.time and isinstance(other.serial, int):
            return not isinstance(self.serial, int) or self.serial < other.serial
        return self.precedes(other)


@dataclass(slots=True, eq=False)
class Life:
    """A time in which a feed stood.

    Attributes:
        feed: Which one.
        since: When that began.
        until: When its last byte came; None while it stands.
        met: When the latest event came first that it and another brought.
        behind: How much later it brought that one; 0 if it was the first.
        firsts: The first events it brought, by kind.
        furthest: The one told last of those it brought, by kind.
        unsure: The kinds of which it brought but one event, known before: the server may repeat it.
        awaiting: When others met a message that ended their connection, and it has yet to.
        latest: The last events it brought, none of them again.
    """

    feed: str
    since: float
    until: float | None = None
    met: float = -inf
    behind: float = 0.0
    firsts: dict[object, list[Told]] = field(default_factory=dict)
    furthest: dict[object, Told] = field(default_factory=dict)
    unsure: set[object] = field(default_factory=set)
    awaiting: list[float] = field(default_factory=list)
    latest: deque[Told] = field(default_factory=partial(deque, maxlen=SURE))

    def note(self, told: Told, *, known: bool = False) -> None:
        """Take note of an event, which may be known from another life."""
        firsts = self.firsts.get(told.kind)
        if firsts is None:
            if len(self.firsts) < KINDS:
                self.firsts[told.kind], self.furthest[told.kind] = [told], told
                if known:
                    self.unsure.add(told.kind)
            return
        if self.unsure and told != firsts[0]:
            self.unsure.discard(told.kind)
        if len(firsts) < FIRSTS:
            firsts.append(told)
        if self.furthest[told.kind].is_passed_by(told):
            self.furthest[told.kind] = told

    def began_after(self, told: Told, at: float) -> bool:
        """Tell whether an event was told before this began: it is not missed here.

        Another feed brought it first at that time: soon after this began, or it is no such event.
        An odd time among the first ones, or a server's clock that was set back, would else hide
        whatever is missed here as long as it stands.
        """
        return at <= self.since + WINDOW and any(
            told.precedes(first) for firsts in self.firsts.values() for first in firsts
        )

    def has_reached(self, other: Life) -> bool:
        """Tell whether it has come at least as far as another began, in all that both brought.

        Of what the other brought first, one may be an old event that the server repeats: it takes
        two to tell.
        """
        kinds = self.furthest.keys() & other.firsts.keys()
        return bool(kinds) and all(
            len({one for one in other.firsts[kind] if not self.furthest[kind].precedes(one)}) > 1
            for kind in kinds
        )
