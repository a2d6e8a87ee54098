"""Allocations: agents set aside for a call that the server dials, and which call that became.

It is the first that rings at the agent's device from then on, before another event of the agent.
Agent events and those of calls are counted apart: of one second, an agent's event comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cti_listener.trackers import steps
from cti_listener.trackers.facts import Fact, Moment
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.memory import read_moment


class Allocations:
    """Knows of each device since when an agent is set aside there, until a call has rung."""

    def __init__(self) -> None:
        """Begin with nobody set aside."""
        self._since: dict[str, Moment] = {}

    def __repr__(self) -> str:
        return f"<Allocations {len(self._since)} open>"

    def rings(self, leg: Leg, fact: Fact, legs: Iterable[Leg]) -> Leg | None:
        """Note that a call rings: it is the one that an agent was set aside for, if one was.

        Args:
            leg: The call.
            fact: What says so.
            legs: The device's calls.

        Returns:
            The call that was taken for it before, and rang later.
        """
        since = self._since.get(leg.device)
        if since is not None and fact[0] >= since[0]:
            leg.allocated = self._since.pop(leg.device)
            return None
        for one in legs:
            if one is not leg and one.allocated is not None and one.allocated[0] <= fact[0]:
                rang = _rang(one)
                if rang is not None and fact[:2] < rang:
                    leg.allocated, one.allocated = one.allocated, None
                    return one
        return None

    def begin(self, device: str, since: Moment, until: Moment | None, legs: Iterable[Leg]) -> None:
        """Note that an agent is set aside.

        Args:
            device: Where.
            since: Since when.
            until: When the agent's next event was, if that has come already.
            legs: The device's calls, of which one may have rung already.
        """
        found: Leg | None = None
        first: Moment | None = None
        for leg in legs:
            rang = _rang(leg)
            if rang is None or rang[0] < since[0] or (until is not None and rang[0] >= until[0]):
                continue
            if first is None or rang < first:
                found, first = leg, rang
        if found is not None:
            found.allocated = found.allocated or since
        elif until is None:
            self._since[device] = max(since, self._since.get(device, since))

    def end(self, device: str, time: Moment, legs: Iterable[Leg]) -> list[Leg]:
        """Note another event of the agent; return the calls that rang no earlier after all.

        Args:
            device: Where.
            time: When it happened.
            legs: The device's calls, those that are just over too.
        """
        since = self._since.get(device)
        if since is not None and since < time:
            del self._since[device]
        later = []
        for leg in legs:
            if leg.allocated is not None and leg.allocated < time:
                rang = _rang(leg)
                if rang is not None and time[0] <= rang[0]:
                    leg.allocated = None
                    later.append(leg)
        return later

    def remembered(self) -> dict[str, Any]:
        """Return what it knows, as plain values."""
        return {**self._since}

    def remember(self, kept: dict[str, Any]) -> None:
        """Go on with what others knew.

        Raises:
            ValueError, TypeError: It was nobody's.
        """
        self._since = {device: read_moment(at) for device, at in kept.items()}


def _rang(leg: Leg) -> Moment | None:
    """Return when it rang at the device first."""
    own = (fact[:2] for fact in leg.facts if fact[2] == steps.DELIVERED and fact[3] == leg.device)
    return min(own, default=None)
