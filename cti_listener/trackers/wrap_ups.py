"""Work after calls: which call an agent's work is after, though the hang-up may come behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeAlias

from cti_listener.trackers.legs import Leg
from cti_listener.trackers.memory import leg_of, plain_leg, read_time

WrapUp: TypeAlias = tuple[str | None, datetime, datetime | None, bool]
"""What an event said of work after a call: whose, since when, until when (None: it goes on), and
whether nothing of it was missed."""


class WrapUps:
    """Keeps of each device the call that ended last where an agent sits, for the work after it."""

    def __init__(self) -> None:
        """Begin with no call that is over."""
        self._last: dict[str, Leg] = {}
        self._wrapping: dict[str, tuple[Leg, datetime]] = {}  # whose agent works after it, since
        self._working: dict[str, datetime] = {}  # whose agent does before the call has ended

    def __repr__(self) -> str:
        return f"<WrapUps {len(self._wrapping)} going on>"

    def __iter__(self) -> Iterator[Leg]:
        yield from self._last.values()
        yield from (leg for leg, _ in self._wrapping.values())

    def ended(self, leg: Leg, *, counts: bool) -> None:
        """Note that a leg is over.

        Args:
            leg: Which one.
            counts: Whether its agent may work after it.
        """
        if counts:
            self._last[leg.device] = leg
        began = self._working.pop(leg.device, None)
        if began is not None and self._last.get(leg.device) is leg and leg.is_before(began):
            self._wrapping[leg.device] = self._last.pop(leg.device), began

    def worked(self, device: str, work: WrapUp, going_on: tuple[Leg, ...]) -> Leg | None:
        """Note that a device's agent works, or worked; return the leg after which that was.

        Args:
            device: Where.
            work: What was said of it.
            going_on: The device's calls, whose hang-ups may have yet to come.
        """
        agent, since, until, _ = work
        last = self._last.get(device)
        if last is not None and last.agent == agent and last.is_before(since):
            self._wrapping[device] = self._last.pop(device), since
        elif until is None and going_on:
            self._working[device] = since
        if until is None:
            return None
        leg, began = self._wrapping.get(device, (None, None))
        return leg if began == since else None

    # For later runs

    def remembered(self) -> dict[str, Any]:
        """Return what it knows, as plain values."""
        return {
            "working": self._working,
            "last": {device: plain_leg(leg) for device, leg in self._last.items()},
            "wrapping": {
                device: (plain_leg(leg), since) for device, (leg, since) in self._wrapping.items()
            },
        }

    def remember(self, kept: dict[str, Any], known: Callable[[str, str], Leg | None]) -> None:
        """Go on with what others knew.

        Args:
            kept: What they remembered.
            known: Finds a leg that is over, by device and call, if there is one already.

        Raises:
            KeyError, ValueError, TypeError: It was nobody's.
        """

        def leg_again(one: dict[str, Any]) -> Leg:
            return known(one["device"], one["call"]) or leg_of(one)

        self._working = {device: read_time(at) for device, at in kept["working"].items()}
        self._last = {device: leg_again(one) for device, one in kept["last"].items()}
        self._wrapping = {
            device: (leg_again(one), read_time(since))
            for device, (one, since) in kept["wrapping"].items()
        }
