"""A lane: what waits for one handler, of one device. The dispatcher fills and empties it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from cti_listener.event_base import Event
from cti_listener.router import Handler, Happening

NOTICES: Final = "\0notices"
"""The lane of notices, for handlers that have a lane for each device."""


@dataclass(slots=True)
class Hole:
    """What was dropped from the front of a lane and not yet told.

    It stands where the first of it stood: behind so many notices, which are never dropped.
    """

    first: Event
    last: Event
    behind: int
    dropped: int = 1


class Lane:
    """What waits for one handler, of one device."""

    __slots__ = ("device", "handler", "hole", "queue", "running", "worker")

    def __init__(self, handler: Handler, device: str | None) -> None:
        """Start with nothing waiting."""
        self.handler = handler
        self.device = device
        self.queue: deque[Happening] = deque()
        self.running: Happening | None = None
        self.worker: asyncio.Task[object] | None = None
        self.hole: Hole | None = None


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
