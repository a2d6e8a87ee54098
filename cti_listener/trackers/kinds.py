"""The facts in events: what each class of call events says of a call, and where that stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from sys import intern
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cti_listener import events
from cti_listener.event_base import Event
from cti_listener.trackers import steps
from cti_listener.trackers.facts import TOLD, Fact, packed
from cti_listener.trackers.steps import Step
from cti_listener.values import EventKey, full_id, read_time

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When an event happened, or came, of which nothing says when."""

_STANDS_IN: Final[MappingProxyType[str, str]] = MappingProxyType(
    {
        "calling": "calling_device",
        "called": "called_device",
        "queue": "split",
        "type": "call_type",
        "original": "original_call_id",
        "primary": "primary_old_call",
        "secondary": "secondary_old_call",
        "into": "new_call",
        "by": "",  # whose step it is
        "to": "transferred_to_device",
        "added": "added_party",
        "record": "record_id",
        "file": "file_name",
        "success": "is_success",
        "failed_message": "failed_msg",
        "hangup": "hangup_device",
    }
)
"""In which field of an event each of `TOLD` stands, where that has another name."""


class Kind(NamedTuple):
    """How an event's class is read.

    Attributes:
        step: What happened.
        whose: The field that names whose step it is.
        told: Takes out of the fields what else is kept, in the order of `TOLD`.
    """

    step: Step
    whose: str
    told: Callable[[Any], tuple[Any, ...]]


def _kind(step: Step, whose: str) -> Kind:
    names = [_STANDS_IN.get(name, name) or whose for name in TOLD[step]]
    return Kind(step, whose, itemgetter(*names) if names else _nothing)


def _nothing(_fields: object) -> tuple[Any, ...]:
    return ()


KINDS: Final[MappingProxyType[type[Event], Kind]] = MappingProxyType(
    {
        events.ServiceInitiated: _kind(steps.SERVICE_INITIATED, "initiated_device"),
        events.Originated: _kind(steps.ORIGINATED, "calling_device"),
        events.Delivered: _kind(steps.DELIVERED, "alerting_device"),
        events.Established: _kind(steps.ESTABLISHED, "answering_device"),
        events.Held: _kind(steps.HELD, "holding_device"),
        events.Retrieved: _kind(steps.RETRIEVED, "retrieving_device"),
        events.Transferred: _kind(steps.TRANSFERRED, "transferring_device"),
        events.Conferenced: _kind(steps.CONFERENCED, "conferencing_device"),
        events.RecordStarted: _kind(steps.RECORD_STARTED, "device_id"),
        events.RecordStopped: _kind(steps.RECORD_STOPPED, "device_id"),
        events.Failed: _kind(steps.FAILED, "device_id"),
        events.ConnectionCleared: _kind(steps.CONNECTION_CLEARED, "releasing_device"),
    }
)
"""The classes that say something of a call."""

_RECORDS: Final = frozenset({steps.RECORD_STARTED, steps.RECORD_STOPPED})


def _kept(said: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """Return what a ringing, or an answer, with user data says, in as little memory as it takes."""
    calling, called, queue, group, member, data, kind, *more = said
    return (
        device if calling == device else calling,
        device if called == device else called,
        *(queue, group, member, packed(data)),
        intern(kind) if type(kind) is str else kind,
        *more,
    )


def _unnamed(step: Step, changed: str | None, device: str, namespace: str | None) -> str | None:
    """Return whose step it is where nothing names that: the device that changed, if another.

    Its own it is only where no other device is told: off hook, dialled, recorded.
    """
    if step in _RECORDS or step <= steps.ORIGINATED:
        return device
    if changed is None:
        return None
    full = full_id(changed, namespace)
    return None if full == device else full


def fact_in(event: Event, kind: Kind, device: str, key: tuple[Any, ...], last: Fact | None) -> Fact:
    """Return what an event says.

    Args:
        event: The event.
        kind: How it is read.
        device: Whose copy it is.
        key: What dedupe compared.
        last: What was said before it of the same call: what is said again is kept once.
    """
    fields, delivery = event.__dict__, event.delivery
    step, whose, told = kind
    party, call, text = fields[whose], fields["call_id"], fields["event_time_text"]
    if party == device:
        party = device
    elif party is None or step in _RECORDS:
        party = _unnamed(step, fields["device_id"], device, fields["namespace"])
    else:
        party = full_id(party, fields["namespace"])
    time = read_time(text, delivery.zone) if text else None
    said = told(fields)
    if fields.get("user_data") is not None:
        said = _kept(said, device)
    _, source, _, serial, _, known_by, named, content = key
    whole = not call or named != call or source != "csta" or type(serial) is not int
    if whole or content is not None:  # else it can be put together from the fact
        known_by = EventKey(*key)
        serial = fields["serial"]  # which may have been written as text
        serial = serial if serial is not None and serial >= 0 else -1
    call = call or ""
    if last is not None:
        if step == steps.ESTABLISHED and last[2] == steps.DELIVERED and last[4][:-1] == said:
            said = last[4]  # with what only the ringing says behind it, which nobody asks there
        known_by = last[5] if last[5] == known_by else known_by
        call = last[6] if last[6] == call else call
    return time or delivery.received_at or NEVER, serial, step, party, said, known_by, call
