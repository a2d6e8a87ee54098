"""How long things take, counted in buckets with fixed bounds, so that no times need be kept.

Kept where something happens (workers, the journal, the watchdog), shown by `stats()`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SHORT: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
"""Bounds for what the process does itself, in seconds."""

LONG: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Bounds for what is told by a clock of whole seconds that is not ours."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram holds at one moment.

    Attributes:
        bounds: The upper bounds of the buckets, in seconds; one more bucket has none.
        counts: How many values lie in each bucket, and in none below.
        total: The sum of all values, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)


class Histogram:
    """Counts values.

    Args:
        bounds: The upper bounds of the buckets, ascending; a value on a bound is below it.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float] = SHORT) -> None:
        """Begin with none."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram of {sum(self._counts)}, {self._total:.3g} s in all>"

    def note(self, value: float) -> None:
        """Count a value, in seconds."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def distribution(self) -> Distribution:
        """Return a frozen snapshot."""
        return Distribution(self._bounds, tuple(self._counts), self._total)
