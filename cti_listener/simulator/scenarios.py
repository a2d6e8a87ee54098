"""Everything that happens in a contact centre, as scenarios: who gets which event, in which order.

A scenario takes a `Cast` and yields the steps of all devices in the order they happen. `SCENARIOS`
and `FOLLOW_UPS` list them all; `handovers` holds those with three parties. `centre` puts them on a
clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cti_listener.simulator import handovers
from cti_listener.simulator.calls import Call
from cti_listener.simulator.course import (
    by_hand,
    connect,
    dial,
    hang_up,
    inbound,
    place,
    ring,
    talk,
)
from cti_listener.simulator.parties import Cast, Step

Play = Callable[[Cast], Iterator[Step]]

FAILURES: Final = MappingProxyType(
    {
        1: ("用户忙", "USER_BUSY"),
        2: ("来电提醒", "NO_USER_RESPONSE"),
        3: ("无法接通", "SUBSCRIBER_ABSENT"),
        4: ("呼叫受限", "OUTGOING_CALL_BARRED"),
        5: ("呼叫转移", "NORMAL_UNSPECIFIED"),
        6: ("关机", "SUBSCRIBER_ABSENT"),
        7: ("停机", "DESTINATION_OUT_OF_ORDER"),
        8: ("空号", "UNALLOCATED_NUMBER"),
        9: ("正在通话中", "USER_BUSY"),
        10: ("线路忙", "NORMAL_CIRCUIT_CONGESTION"),
        11: ("无人接听", "NO_ANSWER"),
        14: ("未知", "NORMAL_UNSPECIFIED"),
    }
)
"""What call recognition tells, by `failedCode`: the message, and the cause of the hang-up."""

_REASONS: Final = ("小休", "用餐", "培训", "会议")
_READY_AGAIN: Final = 0.85
_NOT_RUNG: Final = ("USER_BUSY", "NO_ROUTE_DESTINATION", "CALL_REJECTED")
_RECORDINGS: Final = "/mnt/volumes/recordings/"


# Agents


def log_on(cast: Cast) -> Iterator[Step]:
    """Log on: agentLoggedOn, then agentReady or agentNotReady."""
    ready = cast.chance(_READY_AGAIN)
    yield from cast.agent_step(0.0, "agentLoggedOn", "Ready" if ready else "NotReady")
    yield from _ready_or_not(cast, cast.pause(0.0, 1.0), ready=ready)


def log_off(cast: Cast) -> Iterator[Step]:
    """Log off: agentLoggedOff."""
    yield from cast.agent_step(0.0, "agentLoggedOff", "Logout")


def after_call(cast: Cast) -> Iterator[Step]:
    """Wrap up: agentWorkingAfterCall, then agentReady or agentNotReady."""
    yield from cast.agent_step(cast.pause(0.0, 1.0), "agentWorkingAfterCall", "WorkNotReady")
    yield from _ready_or_not(cast, cast.pause(3.0, 30.0), ready=cast.chance(_READY_AGAIN))


def come_back(cast: Cast) -> Iterator[Step]:
    """End a break: agentReady."""
    yield from _ready_or_not(cast, 0.0, ready=True)


def _ready_or_not(cast: Cast, delay: float, *, ready: bool) -> Iterator[Step]:
    if ready:
        return cast.agent_step(delay, "agentReady", "Ready")
    return cast.agent_step(delay, "agentNotReady", "NotReady", reason=cast.rng.choice(_REASONS))


# Calling out


def call_out(cast: Cast) -> Iterator[Step]:
    """Call out by hand, answered; with two agents, the second is called."""
    call = by_hand(cast, cast.agent.device, cast.device(1))
    yield from place(call)
    yield from hang_up(call, call.parties)


def call_out_unanswered(cast: Cast) -> Iterator[Step]:
    """Call out by hand in vain; an outside number may be out of reach without having rung."""
    call = by_hand(cast, cast.agent.device, cast.device(1))
    yield from dial(call)
    cause = "NO_ANSWER"
    if call.type == "Internal" or cast.chance(0.7):
        yield from ring(call)
    else:
        cause = cast.rng.choice(_NOT_RUNG)
    yield from hang_up(call, call.parties, delay=cast.pause(2.0, 40.0), cause=cause)


def call_failed(cast: Cast) -> Iterator[Step]:
    """Call out in vain, call recognition on: failed, between delivered and connectionCleared."""
    call = by_hand(cast, cast.agent.device, cast.outside)
    code, (message, cause) = cast.rng.choice(list(FAILURES.items()))
    yield from dial(call)
    yield from call.rings(cast.pause(0.5, 3.0), call.called)
    yield from call.failed(cast.pause(1.0, 15.0), code, message, cause)
    yield from hang_up(call, call.parties, delay=cast.pause(0.1, 1.0), cause=cause)


# Being called


def call_in(cast: Cast) -> Iterator[Step]:
    """Be called and answer."""
    call = inbound(cast)
    yield from call.rings(0.0, call.called)
    yield from call.answered(cast.pause(1.0, 15.0), call.called)
    yield from hang_up(call, call.parties)


def call_in_unanswered(cast: Cast) -> Iterator[Step]:
    """Be called and not answer until the switch gives up."""
    call = inbound(cast)
    yield from call.rings(0.0, call.called)
    yield from call.cleared(cast.pause(15.0, 40.0), call.called, cause="NO_ANSWER")


def call_in_rejected(cast: Cast) -> Iterator[Step]:
    """Be called and reject the call."""
    call = inbound(cast)
    yield from call.rings(0.0, call.called)
    yield from call.cleared(
        cast.pause(1.0, 8.0), call.called, cause="CALL_REJECTED", by=call.called
    )


def call_in_abandoned(cast: Cast) -> Iterator[Step]:
    """Be called by someone who hangs up before the answer."""
    call = inbound(cast)
    yield from call.rings(0.0, call.called)
    yield from call.cleared(
        cast.pause(2.0, 30.0), call.called, cause="ORIGINATOR_CANCEL", by=call.calling
    )


# Predictive dialling


def predictive_won(cast: Cast) -> Iterator[Step]:
    """Be set aside by predictive dialling, and get the call it wins."""
    yield from cast.agent_step(0.0, "agentAllocated", "Allocated")
    call = Call(cast, cast.outside, cast.agent.device, "PreDictive", queue=cast.queue)
    yield from call.rings(cast.pause(2.0, 60.0), call.called)
    yield from call.answered(cast.pause(0.2, 2.0), call.called)
    yield from hang_up(call, call.parties)


def predictive_lost(cast: Cast) -> Iterator[Step]:
    """Be set aside by predictive dialling, and ready again as no call is won in about 150 s."""
    yield from cast.agent_step(0.0, "agentAllocated", "Allocated")
    yield from cast.agent_step(cast.pause(148.0, 152.0), "agentReady", "Ready")


# During a call


def hold(cast: Cast) -> Iterator[Step]:
    """Hold the call and take it back, once or twice."""
    other = cast.device(1)
    call = yield from connect(cast, cast.agent.device, other)
    for _ in range(cast.rng.randint(1, 2)):
        who = cast.rng.choice(cast.inside(call.parties))
        yield from call.held(talk(cast), who)
        yield from call.retrieved(cast.pause(3.0, 40.0), who)
    yield from hang_up(call, call.parties)


def recording(cast: Cast) -> Iterator[Step]:
    """Have a call recorded; the recording may end a moment after the call."""
    device = cast.agent.device
    call = yield from connect(cast, device, cast.outside)
    start, stop = _recording(cast, call)
    yield Step(cast.pause(0.0, 0.5), device, "recordStarted", start)
    after = cast.chance(0.5)
    if not after:
        yield Step(talk(cast), device, "recordStopped", stop)
    yield from hang_up(call, call.parties, delay=None if after else 0.0)
    if after:
        yield Step(cast.pause(0.0, 1.0), device, "recordStopped", stop)


def _recording(cast: Cast, call: Call) -> tuple[dict[str, object], dict[str, object]]:
    """Make the fields of a recording's two events.

    The time in the file's name is when it begins, which only the clock knows: `{now}` stands for
    it.
    """
    record_id, device = cast.new_id(), cast.agent.device
    name = f"{{now:%Y/%m%d}}/{device}/{{now:%Y%m%d%H%M%S}}_{call.id}.wav"
    start = {
        "recordId": record_id,
        "callId": call.id,
        "deviceId": device,
        "fileName": f"{_RECORDINGS}/{cast.namespace}/{name}",
        "isSuccess": True,
    }
    return start, {"recordId": record_id, "isSuccess": True}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that happens.

    Attributes:
        play: Yields its steps.
        fewest: How many agents it takes.
        most: How many it can take; with more of them, outside parties become inside ones.
        weight: How often it is begun, against the others.
    """

    play: Play
    fewest: int
    most: int
    weight: float

    @property
    def name(self) -> str:
        """What it is called."""
        return getattr(self.play, "__name__", "")


SCENARIOS: Final = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(log_off, 1, 1, 1),
            Scenario(call_out, 1, 2, 15),
            Scenario(call_out_unanswered, 1, 2, 6),
            Scenario(call_failed, 1, 1, 4),
            Scenario(call_in, 1, 1, 25),
            Scenario(call_in_unanswered, 1, 1, 3),
            Scenario(call_in_rejected, 1, 1, 1),
            Scenario(call_in_abandoned, 1, 1, 3),
            Scenario(predictive_won, 1, 1, 8),
            Scenario(predictive_lost, 1, 1, 1),
            Scenario(hold, 1, 2, 6),
            Scenario(recording, 1, 1, 8),
            Scenario(handovers.single_step_transfer, 2, 3, 4),
            Scenario(handovers.consult_transfer, 2, 3, 4),
            Scenario(handovers.consult_cancel, 2, 3, 3),
            Scenario(handovers.conference_host_first, 2, 4, 2),
            Scenario(handovers.conference_guest_then_host, 2, 4, 2),
            Scenario(handovers.conference_guest_then_other, 2, 4, 2),
            Scenario(handovers.single_step_conference, 2, 3, 2),
        )
    }
)
"""What can be begun, by name."""

FOLLOW_UPS: Final = MappingProxyType(
    {play.__name__: Scenario(play, 1, 1, 0) for play in (log_on, after_call, come_back)}
)
"""What follows from another scenario, by name."""
