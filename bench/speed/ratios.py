"""Figures side by side: rounds in turn, medians with their spread, and the ratios of each round."""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.speed.receivers import Receiver
from bench.speed.sender import Load

T = TypeVar("T")

PATIENCE = 120.0
"""How long one race may take, in seconds; the slowest peer takes ten."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        what: What was compared.
        value: The result: a ratio, as a rule.
        low, high: Of the rounds.
        goal: What it should be; empty where nothing is asked.
        met: Whether it is; None where nothing is asked.
        detail: What it comes from.
    """

    what: str
    value: float
    low: float
    high: float
    goal: str = ""
    met: bool | None = None
    detail: str = ""

    def __str__(self) -> str:
        verdict = {True: "met", False: "NOT MET", None: ""}[self.met]
        spread = f"({self.low:.2f}-{self.high:.2f})"
        return (
            f"{self.what:58} {self.value:8.2f} {spread:15} {self.goal:9} {verdict:8} {self.detail}"
        )


def row(
    what: str,
    values: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    detail: str = "",
) -> Row:
    """Make a line of the values of some rounds: their median is held to the goal."""
    value = statistics.median(values)
    goal, met = "", None
    if at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    elif at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    return Row(what, value, min(values), max(values), goal, met, detail)


def race(
    sender: str, loads: Mapping[str, tuple[Receiver, Load]], rounds: int
) -> dict[str, list[float]]:
    """Let each receive in turn, so many rounds; return the seconds of each. One goes before.

    Each round begins with another: what a machine's clock does meanwhile is not always the same
    one's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loads}
    names = deque(loads)
    for number in range(rounds + 1):
        names.rotate(1)
        for name in names:
            receiver, load = loads[name]
            gc.collect()
            took = asyncio.run(in_time(name, receiver, sender, load))
            if number:
                seconds[name].append(took)
    return seconds


async def in_time(
    name: str,
    receiver: Callable[[str, Load], Coroutine[None, None, T]],
    sender: str,
    load: Load,
) -> T:
    """Run a receiver; an event that never comes must not make the table wait for ever."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await receiver(sender, load)
    except TimeoutError:
        raise AssertionError(f"{name}: not all of {load.events:,} events came") from None


def over(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [a / b for a, b in zip(one, other, strict=True)]


def rate(seconds: Sequence[float], events: int) -> str:
    """Tell events a second."""
    return f"{events / statistics.median(seconds):,.0f}/s"
