"""What can happen in a call, as plain numbers in the order in which it can within one second.

Numbers and no `Enum`: they are hashed and compared several times an event, and an enumeration's
members do both in Python.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Step: TypeAlias = int

SERVICE_INITIATED: Final = 0
ORIGINATED: Final = 1
DELIVERED: Final = 2
ESTABLISHED: Final = 3
HELD: Final = 4
RETRIEVED: Final = 5
TRANSFERRED: Final = 6
CONFERENCED: Final = 7
RECORD_STARTED: Final = 8
RECORD_STOPPED: Final = 9
FAILED: Final = 10
CONNECTION_CLEARED: Final = 11

WIRE_NAMES: Final = (
    "serviceInitiated",
    "originated",
    "delivered",
    "established",
    "held",
    "retrieved",
    "transferred",
    "conferenced",
    "recordStarted",
    "recordStopped",
    "failed",
    "connectionCleared",
)
"""The `eventName` of each."""
