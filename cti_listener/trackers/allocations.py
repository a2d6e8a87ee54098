"""Allocations: agents set aside for a call that the server dials, and which call that became.

It is the first that rings at the agent's device from then on, before another event of the agent.
Agent events and those of calls are counted apart, so they may come in either order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cti_listener.trackers import steps
from cti_listener.trackers.facts import Fact
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.memory import read_time


class Allocations:
    """Knows of each device since when an agent is set aside there, until a call has rung."""

    def __init__(self) -> None:
        """Begin with nobody set aside."""
        self._since: dict[str, datetime] = {}

    def __repr__(self) -> str:
        return f"<Allocations {len(self._since)} open>"

    def rings(self, leg: Leg, fact: Fact) -> None:
        """Note that a call rings: it is the one that an agent was set aside for, if one was."""
        since = self._since.get(leg.device)
        own = fact[2] == steps.DELIVERED and fact[3] == leg.device
        if since is not None and own and fact[0] >= since:
            leg.allocated = self._since.pop(leg.device)

    def begin(
        self, device: str, since: datetime, until: datetime | None, legs: Iterable[Leg]
    ) -> None:
        """Note that an agent is set aside.

        Args:
            device: Where.
            since: Since when.
            until: When the agent's next event was, if that has come already.
            legs: The device's calls, of which one may have rung already.
        """
        rang = [
            (at, leg)
            for leg in legs
            if leg.allocated is None
            and (at := _rang(leg)) is not None
            and at >= since
            and (until is None or at < until)
        ]
        if rang:
            min(rang, key=lambda one: one[0])[1].allocated = since
        elif until is None:
            self._since[device] = max(since, self._since.get(device, since))

    def end(self, device: str, time: datetime, legs: Iterable[Leg]) -> list[Leg]:
        """Note another event of the agent; return the calls that rang no earlier after all.

        Args:
            device: Where.
            time: When it happened.
            legs: The device's calls, those that are just over too.
        """
        since = self._since.get(device)
        if since is not None and since <= time:
            del self._since[device]
        later = []
        for leg in legs:
            if leg.allocated is not None and leg.allocated < time:
                rang = _rang(leg)
                if rang is not None and time <= rang:
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
        self._since = {device: read_time(at) for device, at in kept.items()}


def _rang(leg: Leg) -> datetime | None:
    """Return when it rang at the device first."""
    own = (fact[0] for fact in leg.facts if fact[2] == steps.DELIVERED and fact[3] == leg.device)
    return min(own, default=None)
