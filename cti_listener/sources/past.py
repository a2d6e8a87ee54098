"""What a source knows of its durable subscriptions from the lives before, and from earlier runs.

The source has one `Past`; each life reads it, and brings it up to date.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from math import inf


@dataclass(slots=True)
class Past:
    """What is known of the queues from before; queues go by `name_of`.

    Attributes:
        emptied: When each was last known to be empty.
        found: Which of these the broker still had just before the life at hand.
        taken: How many messages each brought since then, in lives that ended before it was again.
        persistent: Whether all messages that each brought outlive the broker; it is not among these
            if it brought none in a life that ended.
        away: The broker may have been away since the backlogs were in last: an attempt failed, or a
            connection fell silent.
        unnoticed: Until when a broker may take a dead connection of ours for alive, and so for one
            to bring messages to; monotonic, infinite where nothing will tell it.
    """

    emptied: dict[str, datetime] = field(default_factory=dict)
    found: frozenset[str] = frozenset()
    taken: Counter[str] = field(default_factory=Counter)
    persistent: dict[str, bool] = field(default_factory=dict)
    away: bool = False
    unnoticed: float = -inf


def name_of(subscription: str, place: str) -> str:
    """Name a queue among those of all brokers."""
    return f"{subscription} at {place}"
