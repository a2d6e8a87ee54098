"""A lane: what waits for one handler, of one device. The dispatcher fills and empties it.

A durable handler's lane drops nothing when it is full: what it cannot hold stays in the journal,
and it refills from there (`Spill`).
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cti_listener.notices import Notice
from cti_listener.router import Handler, Happening
from cti_listener.values import EventKey

NOTICES: Final = "\0notices"
"""The lane of notices, for handlers that have a lane for each device."""


_NO_SEQS: Final[deque[int]] = deque()


@dataclass(slots=True)
class Hole:
    """What was dropped from the front of a lane and not yet told.

    It stands where the first of it stood: behind so many notices of the listener's own, which are
    never dropped.

    Attributes:
        first: The first event that was dropped, or that a dropped notice followed.
        last: The last one.
        behind: How many notices stand before it.
        dropped: How many were dropped.
    """

    first: EventKey | None
    last: EventKey | None
    behind: int
    dropped: int = 1


@dataclass(slots=True)
class Spill:
    """What a full lane left in the journal.

    Attributes:
        left: Their numbers, oldest first.
        asked: The first of them are on their way.
        behind: Notices that wait for them, each with the event it came after.
    """

    left: array[int]
    asked: bool = False
    behind: deque[tuple[int, Notice]] = field(default_factory=deque)


class Lane:
    """What waits for one handler, of one device.

    Attributes:
        queue: What waits, oldest first.
        seqs: The place of each of these in the journal, 0 for a notice; only a durable handler's
            lane keeps them.
        running: What its handler is at.
        worker: Who runs it now.
        hole: What it dropped and has not told.
        spill: What it left in the journal.
        parked: It holds nothing, and waits for the journal.
    """

    __slots__ = (
        "device",
        "handler",
        "hole",
        "parked",
        "queue",
        "running",
        "seqs",
        "spill",
        "worker",
    )

    def __init__(self, handler: Handler, device: str | None) -> None:
        """Start with nothing waiting."""
        self.handler = handler
        self.device = device
        self.queue: deque[Happening] = deque()
        self.seqs: deque[int] = deque() if handler.durable else _NO_SEQS
        self.running: Happening | None = None
        self.worker: asyncio.Task[object] | None = None
        self.hole: Hole | None = None
        self.spill: Spill | None = None
        self.parked = False

    @property
    def owed(self) -> int:
        """How many wait, here and in the journal."""
        return len(self.queue) + (0 if self.spill is None else len(self.spill.left))

    def append(self, happening: Happening, seq: int) -> None:
        """Take one, for a durable handler, where there is room and nothing was left in the journal.

        Args:
            happening: What comes.
            seq: Its place in the journal; 0 for a notice.
        """
        self.queue.append(happening)
        self.seqs.append(seq)

    def take_or_leave(self, happening: Happening, seq: int) -> bool:
        """Leave one in the journal, behind what was left there; take it if it cannot be left.

        Args:
            happening: What comes.
            seq: Its place in the journal; 0 for a notice, which is never left behind.

        Returns:
            Whether it was taken.
        """
        spill = self.spill
        if spill is not None:
            if isinstance(happening, Notice) and not seq:
                spill.behind.append((spill.left[-1], happening))
            else:
                spill.left.append(seq)
            return False
        if seq and self.queue:
            self.leave([seq])
            return False
        self.append(happening, seq)
        return True

    def leave(self, seqs: Iterable[int]) -> None:
        """Leave events in the journal, one at least; what comes later stays behind them."""
        self.spill = Spill(array("q", seqs))

    def refill(self, found: Sequence[tuple[int, Happening]], asked: int) -> int:
        """Take some of what was left in the journal, with the notices that belong among it.

        Args:
            found: What the journal had of it, the oldest first: all that nobody erased.
            asked: How many of the oldest were asked for.

        Returns:
            How many happenings were taken.
        """
        spill, before = self.spill, len(self.queue)
        if spill is None:
            return 0
        for seq, event in found:
            self._pass_notices(spill, seq)
            self.append(event, seq)
        spill.asked = False
        del spill.left[:asked]
        if not spill.left:
            self._pass_notices(spill, None)
            self.spill = None
        return len(self.queue) - before

    def _pass_notices(self, spill: Spill, seq: int | None) -> None:
        """Take the notices that came before an event; None: all."""
        while spill.behind and (seq is None or spill.behind[0][0] < seq):
            self.append(spill.behind.popleft()[1], 0)


class Keeper(Protocol):
    """Who keeps the books of durable handlers: the journal's side of the lanes."""

    def done(self, lane: Lane, seq: int) -> None:
        """Note that a lane is done with an event, and so with all before it."""

    def dead(self, lane: Lane, seq: int, error: BaseException) -> None:
        """Keep an event that a handler failed on for good."""

    def refill(self, lane: Lane) -> None:
        """Bring the first of what a lane left in the journal: by `Dispatcher.refilled`."""


@dataclass(frozen=True, slots=True)
class Unhandled:
    """What a lane still held when it was given up.

    Attributes:
        handler: The handler's name.
        device: The device, None for a lane of all devices.
        happenings: What was left, oldest first; the first may have been begun.
    """

    handler: str
    device: str | None
    happenings: tuple[Happening, ...]
