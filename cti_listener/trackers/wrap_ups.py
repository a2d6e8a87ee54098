"""Work after calls: which call an agent's work is after, though the hang-up may come behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from cti_listener.trackers.facts import Moment
from cti_listener.trackers.legs import SOON, Leg
from cti_listener.trackers.memory import read_keys, read_time
from cti_listener.values import EventKey

LATE: Final = timedelta(seconds=60)
"""What is told of work after a call comes no later than this."""

WrapUp: TypeAlias = tuple[str | None, datetime, datetime | None, bool]
"""What an event said of work after a call: whose, since when, until when (None: it goes on), and
whether nothing of it was missed."""


Keys: TypeAlias = tuple[EventKey, ...]
"""The events by which it is known."""


class WrapUps:
    """Keeps of each device the call that ended last where an agent sits, for the work after it.

    Not for long: work that counts begins within `SOON`, and what is told of it comes within `LATE`.
    """

    def __init__(self) -> None:
        """Begin with no call that is over."""
        self._last: dict[str, Leg] = {}
        # Whose agent works after it, since when, until when what is told of that may come, by which
        # events.
        self._wrapping: dict[str, tuple[Leg, datetime, datetime | None, Keys]] = {}
        # Whose agent does before the call has ended, since when, by which event.
        self._working: dict[str, tuple[datetime, Keys]] = {}
        self._until: deque[tuple[datetime, Leg]] = deque()  # when to be done with each of these

    def __repr__(self) -> str:
        return f"<WrapUps {len(self._wrapping)} going on>"

    def __iter__(self) -> Iterator[Leg]:
        yield from self._last.values()
        yield from (leg for leg, *_ in self._wrapping.values())

    def ended(self, leg: Leg, now: datetime, *, counts: bool) -> None:
        """Note that a leg is over.

        Args:
            leg: Which one.
            now: When that came.
            counts: Whether its agent may work after it.
        """
        last = self._last.get(leg.device)
        if counts and (last is None or _end(last) <= _end(leg)):
            self._last[leg.device] = leg
            self._until.append((now + SOON + LATE, leg))
        began, keys = self._working.pop(leg.device, (None, ()))
        if began is not None and self._last.get(leg.device) is leg and leg.is_before(began):
            self._wrapping[leg.device] = self._last.pop(leg.device), began, None, keys

    def is_worked_behind(self, leg: Leg) -> bool:
        """Tell whether work has been told of already that begins as a leg is over."""
        began = self._working.get(leg.device)
        return began is not None and leg.is_before(began[0])

    def worked(
        self,
        device: str,
        work: WrapUp,
        going_on: tuple[Leg, ...],
        now: datetime,
        key: EventKey | None,
    ) -> tuple[Leg, Keys] | None:
        """Note that a device's agent works, or worked.

        Args:
            device: Where.
            work: What was said of it.
            going_on: The device's calls, whose hang-ups may have yet to come.
            now: When that came.
            key: What its event is known by.

        Returns:
            The leg after which that was, and by what it is known; None while it goes on.
        """
        agent, since, until, _ = work
        last = self._last.get(device)
        told = () if key is None else (key,)
        if last is not None and last.agent == agent and last.is_before(since):
            self._wrapping[device] = self._last.pop(device), since, None, told
        elif until is None and going_on:
            self._working[device] = since, told
        if until is None:
            return None
        leg, began, _, keys = self._wrapping.get(device, (None, None, None, ()))
        if leg is None or began != since:
            return None
        keys = tuple(dict.fromkeys((*keys, *told)))
        self._wrapping[device] = leg, since, now + LATE, keys
        self._until.append((now + LATE, leg))
        return leg, keys

    def forget(self, now: datetime) -> None:
        """Be done with those of which nothing is to come, but for work that goes on."""
        while self._until and self._until[0][0] < now:
            _, leg = self._until.popleft()
            if self._last.get(leg.device) is leg:
                del self._last[leg.device]
            known, _, until, _ = self._wrapping.get(leg.device, (None, None, None, ()))
            if known is leg and until is not None and until < now:
                del self._wrapping[leg.device]

    # For later runs

    def remembered(self, number: Callable[[Leg], int]) -> dict[str, Any]:
        """Return what it knows, as plain values; of legs the numbers."""
        return {
            "working": self._working,
            "last": [number(leg) for leg in self._last.values()],
            "wrapping": [(number(leg), *times) for leg, *times in self._wrapping.values()],
            "until": [(until, number(leg)) for until, leg in self._until],
        }

    def remember(self, kept: dict[str, Any], legs: Sequence[Leg]) -> None:
        """Go on with what others knew.

        Raises:
            KeyError, IndexError, ValueError, TypeError: It was nobody's.
        """
        self._working = {
            device: (read_time(at), read_keys(keys))
            for device, (at, keys) in kept["working"].items()
        }
        self._last = {leg.device: leg for leg in (legs[number] for number in kept["last"])}
        self._wrapping = {
            legs[number].device: (
                legs[number],
                read_time(since),
                until and read_time(until),
                read_keys(keys),
            )
            for number, since, until, keys in kept["wrapping"]
        }
        self._until = deque((read_time(until), legs[number]) for until, number in kept["until"])


def _end(leg: Leg) -> Moment:
    """Return when a leg that is over was so."""
    return leg.end or leg.facts[0][:2]
