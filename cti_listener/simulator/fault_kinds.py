"""What a fault is to the command line: how it is told, how much of it is allowed, what it sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cti_listener.simulator.connection_faults import RuleFault, Script
from cti_listener.simulator.stream_faults import StreamFault

Dose = float | tuple[float, float]
"""How much of a fault: how often; or how often, and how much each time."""


class Amount(NamedTuple):
    """How much each time: the unit, what it is unless told, and its bounds."""

    unit: str
    default: float
    least: float
    most: float


def seconds(default: float) -> Amount:
    """Tell of an amount that is a time."""
    return Amount("seconds", default, 0.001, 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a field of `Faults` means.

    Attributes:
        text: What goes wrong, for people.
        share: Whether it is told how often as a share, from 0 to 1; else as a number of seconds.
        amount: How much each time, where that is a question.
        stream: The fault of the stream it sets.
        connection: The script of each connection it sets.
        server: The script of the server it sets.
        rule: The rule it changes for a share of the sessions.
    """

    text: str
    share: bool = False
    amount: Amount | None = None
    stream: StreamFault | None = None
    connection: Script | None = None
    server: Script | None = None
    rule: RuleFault | None = None

    def problem(self, dose: Dose) -> str | None:
        """Say what is wrong with a value; None: nothing."""
        if isinstance(dose, tuple):
            if self.amount is None:
                return "takes one number only"
            unit, _, least, most = self.amount
            if not least <= dose[1] <= most:
                return f"takes a number of {unit} behind the colon, {least:.10g} to {most:.10g}"
        often, _ = self.doses(dose)
        if self.share and not 0 <= often <= 1:
            return "is a share, from 0 to 1"
        if not self.share and not 0 < often < float("inf"):
            return "is a number of seconds, more than 0"
        return None

    def doses(self, dose: Dose) -> tuple[float, float]:
        """Return how often, and how much each time."""
        if isinstance(dose, tuple):
            return dose
        return dose, self.amount.default if self.amount else 0.0

    @property
    def shape(self) -> str:
        """How it is written: `SECONDS[:BYTES]`."""
        often = "SHARE" if self.share else "SECONDS"
        return often if self.amount is None else f"{often}[:{self.amount.unit.upper()}]"

    @property
    def told(self) -> str:
        """What goes wrong, and how much of it unless told."""
        if self.amount is None:
            return f"{self.text}."
        return f"{self.text} ({self.amount.default:.10g} {self.amount.unit})."
