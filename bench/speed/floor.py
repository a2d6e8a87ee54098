"""The least that tracking could cost: a stand-in for it that understands nothing.

It notes the mode of each agent, keeps what each event of a call says, and at a device's own hang-up
drops that and hands on a record that was made beforehand. No order, no transfers, no ids that
change, no gaps, nothing derived: what a tracker in Python takes before it begins to track.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeAlias

from bench.speed.receivers import Receiver
from bench.speed.sender import Load
from cti_listener.derived import CallEnded, Derived
from cti_listener.event_base import Event
from cti_listener.events import ConnectionCleared
from cti_listener.records import CallRecord
from cti_listener.trackers.agents import AGENT_EVENTS, MODES
from cti_listener.trackers.kinds import KINDS, NEVER
from cti_listener.tracking import Tracking
from cti_listener.values import EventKey, read_time

Apply: TypeAlias = Callable[[Tracking, Event, tuple[Any, ...]], Sequence[Derived]]

_NOTHING: dict[str, Any] = dict.fromkeys(one.name for one in fields(CallRecord))
_RECORD: Final = CallRecord(**{**_NOTHING, "talk_seconds": 5.0})


def with_least(receiver: Receiver, *, records: bool) -> Receiver:
    """Receive with the stand-in in the place of tracking.

    Args:
        receiver: What asks for the views or for records.
        records: Whether it wants those.
    """

    async def receive(sender: str, load: Load) -> float:
        tracks = Tracking.apply
        setattr(Tracking, "apply", _least(records=records))  # noqa: B010 - mypy refuses to assign it
        try:
            return await receiver(sender, load)
        finally:
            setattr(Tracking, "apply", tracks)  # noqa: B010

    return receive


def _least(*, records: bool) -> Apply:
    modes: dict[str, tuple[str | None, datetime | None, str | None]] = {}
    calls: dict[tuple[str, str | None], list[Any]] = {}

    def apply(_: Tracking, event: Event, key: tuple[Any, ...]) -> Sequence[Derived]:
        kind, device, said, delivery = type(event), event.device, event.__dict__, event.delivery
        assert device is not None
        if kind in AGENT_EVENTS:
            time = read_time(said["event_time_text"], delivery.zone)
            modes[device] = MODES.get(kind) or said["agent_mode"], time, said["agent_id"]
            return ()
        how = KINDS.get(kind)
        if how is None:
            return ()
        call, party = (device, said["call_id"]), said[how.whose]
        time = read_time(said["event_time_text"], delivery.zone)
        facts = calls.setdefault(call, [])
        facts.append((time, key[3], how.step, party, how.told(said)))
        if kind is not ConnectionCleared or party != device:
            return ()
        del calls[call]
        if not records:
            return ()
        at = delivery.received_at or NEVER
        return [CallEnded(at=at, device=device, event=EventKey(*key), call=_RECORD)]

    return apply
