"""What a source knows of its durable subscriptions from the lives before, and from earlier runs.

The source has one `Past`; each life reads it, and brings it up to date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from typing import Final

from cti_listener.clock import FOREVER, Clock

OUTLIVES: Final = {True: ", all persistent", False: ", not all persistent"}
"""What is added to a queue's name to keep, for ever, whether what it brings outlives the broker."""


@dataclass(slots=True)
class Past:
    """What is known of the queues from before; queues go by `name_of`.

    Attributes:
        emptied: When each was last known to be empty.
        found: Which of these the broker still had just before the life at hand.
        taken: How many messages each brought since then, in lives that ended before it was again.
        persistent: Whether all messages that each brought outlive the broker; it is not among these
            if it brought none in a life that ended.
        unnoticed: Until when a broker may take a dead connection of ours for alive, and so for one
            to bring messages to; monotonic, infinite where nothing will tell it.
        overtaken: We may have taken newer messages than such a connection holds.
    """

    emptied: dict[str, datetime] = field(default_factory=dict)
    found: frozenset[str] = frozenset()
    taken: Counter[str] = field(default_factory=Counter)
    persistent: dict[str, bool] = field(default_factory=dict)
    unnoticed: float = -inf
    overtaken: bool = False

    def recall(self, kept: Mapping[str, datetime], name: str, clock: Clock) -> None:
        """Take what earlier runs have kept.

        Args:
            kept: When each queue was known to be empty, which of them bring what outlives the
                broker, and what connections of ours held to be given back.
            name: Begins the id of each of our subscriptions.
            clock: The one clock.
        """
        for row, at in kept.items():
            outlives = next((one for one in (True, False) if row.endswith(OUTLIVES[one])), None)
            if outlives is None:
                self.emptied[row] = at
            elif row.startswith(f"{name}."):
                self.persistent[row.removesuffix(OUTLIVES[outlives])] = outlives
        given_back = self.emptied.pop(held_by(name), None)
        if given_back is not None:
            ahead = (given_back - clock.now()).total_seconds() if given_back < FOREVER else inf
            self.unnoticed = max(self.unnoticed, clock.monotonic() + ahead)
            self.overtaken = self.overtaken or ahead > 0

    def to_keep(self, unnoticed: float, clock: Clock) -> datetime | None:
        """Return what later runs are to know of `unnoticed`; None: it has passed."""
        ahead = unnoticed - clock.monotonic()
        if ahead == inf:
            return FOREVER
        return clock.now() + timedelta(seconds=ahead) if ahead > 0 else None


def name_of(subscription: str, place: str) -> str:
    """Name a queue among those of all brokers."""
    return f"{subscription} at {place}"


def held_by(name: str) -> str:
    """Name what connections of ours hold that the broker may take for alive: messages of queues.

    It is kept among the queues, with the time from which on it is empty: then all was given back.

    Args:
        name: Begins the id of each of our subscriptions.
    """
    return f"held by connections of {name}"
