"""The facts in snapshots: what an answer says of a call, written as if events had said it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cti_listener.snapshots import CallSnapshot
from cti_listener.trackers import steps
from cti_listener.trackers.facts import INFERRED, TOLD, Fact
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.steps import Step
from cti_listener.values import full_id


def inferred(
    step: Step, party: str | None, time: datetime, call: CallSnapshot | None = None
) -> Fact:
    """Write a fact that no event said.

    Args:
        step: What happened.
        party: Whose step it is.
        time: When.
        call: Of which call; it says who calls whom.
    """
    said: dict[str, Any] = {}
    if call is not None:
        said = {"calling": call.calling, "called": call.called}
    told = tuple([said.get(name) for name in TOLD[step]])
    return time, INFERRED, step, party, told, None, "" if call is None else call.id


def beginning(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that a call began, and who called whom."""
    calling = _full(call.calling, device)
    began = min(one for one in (call.alerted, call.answered, now) if one is not None)
    if calling is None and call.state == "initiated":
        yield inferred(steps.SERVICE_INITIATED, device, began)
    else:
        yield inferred(steps.ORIGINATED, calling, began, call)
    if call.state == "alerting" or call.alerted is not None:
        yield from ringing(device, call, now)


def ringing(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that the device rings, or whom it calls does."""
    calls = _full(call.calling, device) == device
    rings = _full(call.called, device) if calls else device
    yield inferred(steps.DELIVERED, rings, call.alerted or now, call)


def answer(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that a call was answered; where it is not known when, that there is a conversation."""
    if call.answered is None:
        if call.state != "held":  # which says as much
            yield inferred(steps.RETRIEVED, device, now)
        return
    calls = _full(call.calling, device) == device
    by = _full(call.called, device) if calls else device
    yield inferred(steps.ESTABLISHED, by, call.answered, call)


def is_after(call: CallSnapshot, leg: Leg) -> bool:
    """Tell whether a call began when this leg of it was over: the device came back to it."""
    began, end = call.alerted or call.answered, leg.end
    return began is not None and end is not None and is_later(began, end[0])


def is_later(told: datetime, event: datetime) -> bool:
    """Tell whether what a snapshot tells lies behind an event, of which whole seconds are known."""
    return told.replace(microsecond=0) > event


def _full(party: str | None, device: str) -> str | None:
    return full_id(party, device.partition("@")[2]) if party else None
