"""The states of a device in a call: which steps may follow in each, and where each leads."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from cti_listener.records import State
from cti_listener.trackers import steps
from cti_listener.trackers.steps import Step

AFTER: Final[MappingProxyType[Step, State]] = MappingProxyType(
    {
        steps.SERVICE_INITIATED: "initiated",
        steps.ORIGINATED: "initiated",
        steps.DELIVERED: "alerting",
        steps.ESTABLISHED: "connected",
        steps.HELD: "held",
        steps.RETRIEVED: "connected",
        steps.CONFERENCED: "connected",
        steps.CONNECTION_CLEARED: "cleared",
    }
)
"""The device's state after a step of its own, believed whatever was before; else it stays."""

RANKS: Final[MappingProxyType[State, int]] = MappingProxyType(
    {"initiated": 0, "alerting": 1, "connected": 2, "held": 3}
)
"""Which state a device is in before which."""

_ANY: Final = frozenset(
    {steps.RECORD_STARTED, steps.RECORD_STOPPED, steps.FAILED, steps.CONNECTION_CLEARED}
)
_TALKING: Final = _ANY | {steps.TRANSFERRED, steps.CONFERENCED}

BEGINNINGS: Final = frozenset({steps.SERVICE_INITIATED, steps.ORIGINATED, steps.DELIVERED})
"""What begins a call at a device, if it is its own step."""

MAY_FOLLOW: Final[MappingProxyType[State | None, frozenset[Step]]] = MappingProxyType(
    {
        None: BEGINNINGS,
        # A desk phone may leave out the answer as well.
        "initiated": _TALKING
        | {steps.SERVICE_INITIATED, steps.ORIGINATED, steps.ESTABLISHED, steps.HELD},
        "alerting": _ANY | {steps.DELIVERED, steps.ESTABLISHED},
        "connected": _TALKING | {steps.HELD},
        "held": _TALKING | {steps.RETRIEVED},
        "cleared": frozenset({steps.RECORD_STOPPED}),
    }
)
"""Which steps of its own may follow in which state of a device; None: it is not in the call."""

ENDINGS: Final = frozenset({steps.RECORD_STARTED, steps.RECORD_STOPPED, steps.CONNECTION_CLEARED})
"""What never begins a call, nor brings one back: it may come late, of one that is over."""

_EVERY: Final = frozenset(range(len(steps.WIRE_NAMES)))

OTHERS_MAY: Final[MappingProxyType[State | None, frozenset[Step]]] = MappingProxyType(
    {
        # A desk phone leaves out what came before: the far end rings, or answers, at once. This
        # goes for the device that calls; at any other it rings first.
        None: frozenset({steps.DELIVERED, steps.ESTABLISHED}),
        "initiated": _EVERY,
        # Who is handed a call that still rings hears that, and what the other does meanwhile; of
        # several that ring, one answers.
        "alerting": _ANY
        | {steps.DELIVERED, steps.ESTABLISHED, steps.TRANSFERRED, steps.HELD, steps.RETRIEVED},
        "connected": _EVERY,
        "held": _EVERY,
        "cleared": frozenset({steps.CONNECTION_CLEARED, steps.TRANSFERRED}),
    }
)
"""Which steps of others may follow."""


def after_others(state: State | None, step: Step) -> State | None:
    """Return the state of a device after a step of another; None: that depends on who calls."""
    answered = step == steps.ESTABLISHED and (state is None or state == "initiated")
    joined = step == steps.CONFERENCED and state != "held"
    return "connected" if answered or joined else state


OWN_MOVES: Final = {
    state: {step: AFTER.get(step, state) for step in may} for state, may in MAY_FOLLOW.items()
}
"""Where each step of a device's own leads that may follow in a state: both at one look."""

OTHERS_MOVES: Final = {
    state: {step: after_others(state, step) for step in may} if state else {}
    for state, may in OTHERS_MAY.items()
}
"""Where those of others lead; none where it is not in the call, which depends on who calls."""
