"""Answers: what somebody who was asked says of a device's calls, brought to what is known of them.

Nothing goes backwards, and nothing ends by what an answer does not mention. What it says becomes
facts, as if events had said it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from cti_listener.derived import CallAnswered, CallHeld, CallRetrieved, CallStarted
from cti_listener.snapshots import CallSnapshot, DeviceSnapshot
from cti_listener.trackers import steps
from cti_listener.trackers.board import Board
from cti_listener.trackers.facts import INFERRED, TOLD, Fact
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.steps import Step
from cti_listener.trackers.telling import Telling
from cti_listener.values import full_id


class Answers:
    """Takes snapshots.

    Args:
        board: All legs.
        add: Tells of a leg's call, as `CallTracker` does.
    """

    def __init__(self, board: Board, add: Callable[..., None]) -> None:
        """Know of no answer."""
        self._board = board
        self._add = add

    def adopt(self, device: str, snapshot: DeviceSnapshot, telling: Telling) -> None:
        """Take what somebody says of a device's calls, and tell what differs, in order.

        Args:
            device: Whose.
            snapshot: What is said.
            telling: What follows, and when this was said.
        """
        now = telling.now
        for one in snapshot.calls:
            leg = self._board.known.get((device, one.id))
            if leg is not None and leg.told and (leg.expired or _is_after(one, leg)):
                leg = None
            elif leg is None and self._is_over(device, one):
                continue
            if leg is None:
                leg = Leg(device, one.id, device.partition("@")[2] or None, self._board.epoch)
                leg.adopt(_beginning(device, one, now), "initiated", now)
                self._board.enter(leg)
                leg.begun = True
                self._add(CallStarted, leg, telling, inferred=True)
            if not leg.ended:
                self._adopt_state(leg, one, telling)

    def confirm(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Be sure of a device if all its calls were named, and those that came since were seen."""
        named, epoch = {one.id for one in snapshot.calls}, self._board.epoch
        if snapshot.complete and all(
            leg.epoch == epoch or not named.isdisjoint((leg.call, *leg.former))
            for leg in self._board.at(device)
        ):
            self._board.confirm(device)

    def _is_over(self, device: str, one: CallSnapshot) -> bool:
        """Tell whether what is said of a call is of a stay that is over, and forgotten."""
        gone, began = self._board.gone_at(device, one.id), one.alerted or one.answered
        if gone is None or gone.given_up:
            return False
        return began is None or not _is_later(began, gone.ended)

    def _adopt_state(self, leg: Leg, one: CallSnapshot, telling: Telling) -> None:
        """Bring a leg that goes on to the state that is said of it."""
        device, now = leg.device, telling.now
        if one.state in {"initiated", "alerting"}:
            if leg.state == "initiated" and one.state == "alerting":
                leg.adopt(_ringing(device, one, now), "initiated" if leg.calls else "alerting", now)
            return
        if leg.state in {"initiated", "alerting", None}:
            leg.adopt(_answer(device, one, now), "connected", now)
            if not leg.answered:
                leg.answered = True
                self._add(CallAnswered, leg, telling, inferred=True)
        if leg.state == "connected" and one.state == "held":
            leg.adopt([_inferred(steps.HELD, device, now)], "held", now)
            self._add(CallHeld, leg, telling, inferred=True, by=device)
        elif leg.state == "held" and one.state == "connected":
            leg.adopt([_inferred(steps.RETRIEVED, device, now)], "connected", now)
            self._add(CallRetrieved, leg, telling, inferred=True, by=device)


def _inferred(
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


def _beginning(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that a call began, and who called whom."""
    calling = _full(call.calling, device)
    began = min(one for one in (call.alerted, call.answered, now) if one is not None)
    if calling is None and call.state == "initiated":
        yield _inferred(steps.SERVICE_INITIATED, device, began)
    else:
        yield _inferred(steps.ORIGINATED, calling, began, call)
    if call.state == "alerting" or call.alerted is not None:
        yield from _ringing(device, call, now)


def _ringing(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that the device rings, or whom it calls does."""
    calls = _full(call.calling, device) == device
    rings = _full(call.called, device) if calls else device
    yield _inferred(steps.DELIVERED, rings, call.alerted or now, call)


def _answer(device: str, call: CallSnapshot, now: datetime) -> Iterator[Fact]:
    """Say that a call was answered; where it is not known when, that there is a conversation."""
    if call.answered is None:
        if call.state != "held":  # which says as much
            yield _inferred(steps.RETRIEVED, device, now)
        return
    calls = _full(call.calling, device) == device
    by = _full(call.called, device) if calls else device
    yield _inferred(steps.ESTABLISHED, by, call.answered, call)


def _is_after(call: CallSnapshot, leg: Leg) -> bool:
    """Tell whether a call began when this leg of it was over: the device came back to it."""
    began, end = call.alerted or call.answered, leg.end
    return began is not None and end is not None and _is_later(began, end[0])


def _is_later(told: datetime, event: datetime) -> bool:
    """Tell whether what a snapshot tells lies behind an event, of which whole seconds are known."""
    return told.replace(microsecond=0) > event


def _full(party: str | None, device: str) -> str | None:
    return full_id(party, device.partition("@")[2]) if party else None
