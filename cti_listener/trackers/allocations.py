"""Allocations: agents set aside for a call that the server dials, and which call that became.

It is the first that rings at the agent's device from then on, before another event of the agent,
but for calls of which the server says that somebody else made them.
Agent events and those of calls are counted apart: of one second, an agent's event comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from cti_listener.trackers import steps
from cti_listener.trackers.facts import TOLD, Fact, Moment
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.memory import read_moment

_TYPE: Final = TOLD[steps.DELIVERED].index("type")
LONGEST: Final = timedelta(seconds=300)
"""No call is won later than this: the server gives up after about 150 s, and says so."""

_NOT_DIALLED: Final = frozenset({"Internal", "Inbound"})
"""What `callType` says of a call that the server did not dial."""


class Allocations:
    """Knows of each device since when an agent is set aside there, and which call that became.

    Attributes:
        used: Whether anybody was ever set aside.
    """

    def __init__(self) -> None:
        """Begin with nobody set aside."""
        self.used = False
        self._since: dict[str, Moment] = {}  # until a call has rung
        self._won: dict[str, Leg] = {}  # until the agent's next event

    def __repr__(self) -> str:
        return f"<Allocations {len(self._since)} open>"

    def __contains__(self, device: str) -> bool:
        return device in self._since or device in self._won

    def rings(self, leg: Leg, fact: Fact) -> Leg | None:
        """Note that a call rings: it is the one that an agent was set aside for, if one was.

        Args:
            leg: The call.
            fact: What says so.

        Returns:
            The call that was taken for it before, and rang later.
        """
        device = leg.device
        since = self._since.get(device)
        if type_in(fact) in _NOT_DIALLED:
            return None
        if since is not None and fact[0] - since[0] > LONGEST:
            del self._since[device]
            since = None
        if since is not None and fact[0] >= since[0]:
            leg.allocated = self._since.pop(device)
            self._won[device] = leg
            return None
        won = self._won.get(device)
        rang = None if won is None or won is leg else _rang(won)
        if won is None or won.allocated is None or rang is None or fact[:2] >= rang:
            return None
        if fact[0] < won.allocated[0]:
            return None
        leg.allocated, won.allocated = won.allocated, None
        self._won[device] = leg
        return won

    def begin(self, device: str, since: Moment, until: Moment | None, legs: Iterable[Leg]) -> None:
        """Note that an agent is set aside.

        Args:
            device: Where.
            since: Since when.
            until: When the agent's next event was, if that has come already.
            legs: The device's calls, of which one may have rung already.
        """
        self.used = True
        found: Leg | None = None
        first: Moment | None = None
        for leg in legs:
            rang = _rang(leg)
            taken = leg.allocated is not None and leg is not self._won.get(device)
            if taken or rang is None or rang[0] < since[0]:
                continue
            if until is not None and rang[0] >= until[0]:
                continue
            if first is None or rang < first:
                found, first = leg, rang
        if found is not None:
            found.allocated = since
            self._won[device] = found
        elif until is None:
            self._since[device] = max(since, self._since.get(device, since))

    def end(self, device: str, time: Moment, *, works: bool) -> Leg | None:
        """Note another event of the agent; return a call that rang no earlier after all.

        Args:
            device: Where.
            time: When it happened.
            works: The agent works after a call, which so rang before.
        """
        since = self._since.get(device)
        if since is not None and since < time:
            del self._since[device]
        won = self._won.get(device)
        if won is None or won.allocated is None or won.allocated >= time:
            return None
        del self._won[device]
        rang = _rang(won)
        if rang is None or time[0] > rang[0] or (works and time[0] == rang[0]):
            return None
        won.allocated = None
        return won

    def take_back(self, leg: Leg) -> None:
        """Have the next call that rings be the one, if this did not ring after all."""
        if leg.allocated is not None and _rang(leg) is None:
            self._since[leg.device], leg.allocated = leg.allocated, None
            self._won.pop(leg.device, None)

    def remembered(self, number: Callable[[Leg], int]) -> dict[str, Any]:
        """Return what it knows, as plain values; of legs the numbers."""
        won = [number(leg) for leg in self._won.values()]
        return {"used": self.used, "since": {**self._since}, "won": won}

    def remember(self, kept: dict[str, Any], legs: Sequence[Leg]) -> None:
        """Go on with what others knew.

        Raises:
            KeyError, IndexError, ValueError, TypeError: It was nobody's.
        """
        self.used = kept["used"]
        self._since = {device: read_moment(at) for device, at in kept["since"].items()}
        self._won = {leg.device: leg for leg in (legs[number] for number in kept["won"])}


def type_in(fact: Fact) -> str:
    """Return what a ringing says of the call's type."""
    return str(fact[4][_TYPE])


def _rang(leg: Leg) -> Moment | None:
    """Return when it rang at the device first; None: not at all, or somebody else made it."""
    own = [fact for fact in leg.facts if fact[2] == steps.DELIVERED and fact[3] == leg.device]
    if any(type_in(fact) in _NOT_DIALLED for fact in own):
        return None
    return min((fact[:2] for fact in own), default=None)
