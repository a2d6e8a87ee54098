"""From the facts of legs to what is told: a `Call` as it stands, a `CallRecord` when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import datetime
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from cti_listener.records import Call, CallRecord, Direction, Hold, Party, Recording, Transfer
from cti_listener.trackers import steps
from cti_listener.trackers.facts import (
    INFERRED,
    LINE,
    NOTHING,
    TOGETHER,
    Fact,
    Handing,
    Reading,
    Said,
    is_known,
    unpacked,
)
from cti_listener.trackers.legs import Leg, Substance
from cti_listener.values import EventKey

DIRECTIONS: Final[MappingProxyType[str, Direction]] = MappingProxyType(
    {
        "Inbound": "inbound",
        "Outbound": "outbound",
        "Internal": "internal",
        "PreOccupied": "predictive",
        "PreDictive": "predictive",
        "AgentAutoCall": "predictive",
        "PreView": "outbound",
        "SMART_IVR": "predictive",
    }
)
"""What `callType` means; a value that is not listed counts as absent."""

_substance = attrgetter(
    *(one.name for one in fields(CallRecord) if one.name not in {"events", "revision", "user_data"})
)

IsInternal = Callable[[str], bool]
"""Tells whether a party, as a full id, is one of ours."""


def call_of(legs: Iterable[Leg], is_internal: IsInternal, *, epoch: int) -> Call:
    """Put together what the devices of one call know of it.

    Args:
        legs: All legs of the call, one at least; those that are over first.
        is_internal: Tells whether a party is one of ours.
        epoch: How often anything has been missed by now.
    """
    legs = list(legs)
    readings = [Reading(leg.device, leg.facts, leg.namespace) for leg in legs]
    first = min(readings, key=lambda one: one.facts[0][:2])
    said: dict[str, Any] = {}
    for one in readings:
        said.update(one.said)
    ends = [_end_of(leg, one) for leg, one in zip(legs, readings, strict=True)]
    allocated = any(leg.allocated is not None for leg in legs)
    return Call(
        id=legs[0].call,
        former_ids=_distinct(chain.from_iterable(leg.former for leg in legs)),
        direction=_direction(first, is_internal, allocated=allocated),
        parties=_parties(readings),
        started=first.started,
        alerted=_earliest(one.alerted for one in readings),
        answered=_earliest(one.answered for one in readings),
        ended=max(end for end in ends if end) if all(leg.ended for leg in legs) else None,
        queue=said.get("queue"),
        trunk_group=said.get("trunk_group"),
        trunk_member=said.get("trunk_member"),
        user_data=unpacked(said.get("user_data")),
        holds=_holds(readings),
        transfers=_transfers(readings),
        members=_distinct(chain.from_iterable(one.members for one in readings)),
        recordings=tuple(chain.from_iterable(_recordings(one) for one in readings)),
        cause=next((c for one in readings for c in one.causes if c), None),
        hung_up_by=next((one.hung_up_by for one in readings if one.hung_up_by), None),
        uncertain=any(leg.uncertain or leg.epoch < epoch for leg in legs)
        or any(one.odd for one in readings),
    )


def record_of(leg: Leg, is_internal: IsInternal, *, epoch: int) -> tuple[CallRecord, Substance]:
    """Make the record of a leg that is over; return what it says, too, to be held against others.

    Args:
        leg: The leg.
        is_internal: Tells whether a party is one of ours.
        epoch: How often anything has been missed by now.
    """
    read = Reading(leg.device, leg.facts, leg.namespace)
    said = read.said
    ended = max(_end_of(leg, read) or read.started, read.started)
    hold = _seconds_on_hold(read, ended)
    given_up = leg.expired is not None and read.ended is None
    over = None if given_up else ended  # nobody knows until when it rang, or they talked
    if leg.given is not None:
        _add_given(read, leg.given)
        said = {**leg.given, **said}
    other = _other_party(read)
    handed_on = handed_in = None
    consulted = leg.consults
    if read.transfers:
        handed_on = next((to for by, to, _, _ in read.transfers if by == leg.device), None)
        handed_in = next((by for by, to, _, _ in read.transfers if to == leg.device), None)
        consulted += tuple([one for by, _, _, one in read.transfers if one and by == leg.device])
    answered = read.answered if read.answered is None else min(read.answered, ended)
    user_data = said.get("user_data")
    record = CallRecord(
        id=leg.call,
        former_ids=_distinct(leg.former),
        device=leg.device,
        agent=leg.agent,
        direction=_direction(
            read,
            is_internal,
            allocated=leg.allocated is not None,
            given=NOTHING if leg.former else leg.given or NOTHING,
        ),
        other_party=other,
        other_internal=None if other is None else is_internal(other),
        started=read.started,
        answered=answered,
        ended=ended,
        was_answered=read.talked,
        ring_seconds=_seconds(read.alerted, answered or (None if read.talked else over)),
        talk_seconds=_talk(answered, over, hold),
        hold_seconds=hold,
        wrap_up_seconds=None if leg.wrap_up is None else leg.wrap_up[0],
        queue=said.get("queue"),
        trunk_group=said.get("trunk_group"),
        trunk_member=said.get("trunk_member"),
        user_data=unpacked(user_data),
        transferred_from=handed_in,
        transferred_to=handed_on,
        members=tuple(read.members),
        consult_ids=_distinct(one for one in consulted if one not in (leg.call, *leg.former))
        if consulted
        else (),
        original_call_id=_original(leg, said),
        merged_into=None if leg.merged_into is None else leg.merged_into[0],
        recordings=_recordings(read),
        cause=_cause(leg, read),
        failed_code=said.get("failed_code"),
        failed_message=said.get("failed_message"),
        hung_up_by=read.hung_up_by,
        inferred=given_up,
        uncertain=leg.uncertain or leg.epoch < epoch or read.odd,
        revision=leg.told + 1,
        events=_keys(leg, read.facts),
    )
    return record, (*_substance(record), user_data)


def given_by(giver: Leg, by: Fact) -> dict[str, Any]:
    """Return what a device knew of a call that it handed on: its events tell the next one less.

    Args:
        giver: The leg of who handed it on, or called another in.
        by: What says so.
    """
    facts, before = giver.facts, giver.given or {}
    called_in = by[2] == steps.CONFERENCED
    if called_in:  # who joins later, the device hears itself
        facts = [fact for fact in facts if fact[:2] <= by[:2]]
    read = Reading(giver.device, facts, giver.namespace)
    _add_given(read, before)
    given: dict[str, Any] = {name: before[name] for name in LINE if name in before}
    given |= {name: read.said[name] for name in LINE if name in read.said}
    if not called_in:
        return {**given, "other": _other_party(read)}
    there = [one for one in read.members if read.parties.get(one, ("",))[0] != "cleared"]
    return {**given, "members": there}


def _add_given(read: Reading, given: Said) -> None:
    """Add who was in a call before the device was brought into it."""
    read.add(given.get("other"))
    for party in reversed(given.get("members", ())):
        read.add(party, member=True)


def differ(one: Substance, other: Substance) -> bool:
    """Tell whether two records say something else."""
    if one == other:
        return False
    return one[:-1] != other[:-1] or unpacked(one[-1]) != unpacked(other[-1])


def _end_of(leg: Leg, read: Reading) -> datetime | None:
    """Return when a leg was over, however it came to be."""
    if read.ended is not None:
        return read.ended
    return leg.merged_into[1] if leg.merged_into else leg.expired


def _cause(leg: Leg, read: Reading) -> str | None:
    own, others = read.causes
    if read.ended is not None or own is not None:
        return own or others
    if leg.merged_into is not None:
        return "conferenced"
    return "expired" if leg.expired is not None else others


def _original(leg: Leg, said: dict[str, Any]) -> str | None:
    told = said.get("original") or leg.original
    return None if told in (leg.call, *leg.former) else told


def _direction(
    read: Reading, is_internal: IsInternal, *, allocated: bool, given: Said = NOTHING
) -> Direction | None:
    """Return it as the server says it, else by who called whom at first.

    Args:
        read: What the device heard.
        is_internal: Tells whether a party is one of ours.
        allocated: An agent was set aside for the call.
        given: What is known of it besides, if it came as it was handed over.
    """
    if told := DIRECTIONS.get(str(read.said.get("type"))):
        return told
    other = read.dialled if read.calls else read.calling
    if read.calls is None:
        return None
    if other is None:  # who withholds a number is no colleague, if the call came by a line
        line = allocated or any(read.said.get(name) or given.get(name) for name in LINE[:-1])
        if read.calls or not line:
            return None
    elif is_internal(other):
        return "internal"
    if read.calls:
        return "outbound"
    return "predictive" if allocated else "inbound"


def _other_party(read: Reading) -> str | None:
    """Return with whom the device was at the end."""
    device = read.device
    other = read.called if read.calls else read.calling if read.calls is False else None
    for by, to, _, _ in read.transfers:
        if to == device:  # handed over: with whomever that was not
            calling, called = read.said.get("calling"), read.said.get("called")
            others = *read.parties, calling, called, read.hung_up_by
            handers = {device, by, *(one[1] for one in read.transfers if one[0] == device)}
            other = next((one for one in others if one is not None and one not in handers), None)
        elif by != device:
            other = to or other
    if read.members:
        return _last_to_stay(read, other)
    if other is None and not read.transfers:
        other = next((one for one in read.parties if one != device), None)
    return other


def _last_to_stay(read: Reading, other: str | None) -> str | None:
    """Return of a conference the party that stayed longest; of several, the one before it."""
    left = {
        one: since if state == "cleared" else None
        for one, (state, since) in read.parties.items()
        if one != read.device
    }
    end = read.ended
    stayed = [
        one for one, at in left.items() if at is None or (end is not None and end - at <= TOGETHER)
    ]
    if not stayed and left:
        last = max(since for since in left.values() if since is not None)
        stayed = [one for one, since in left.items() if since == last]
    return other if other in stayed or not stayed else stayed[0]


def _parties(readings: list[Reading]) -> tuple[Party, ...]:
    """Return everybody: one of our devices as its own events tell it, others as the latest does.

    Of who is on the far side nothing is told before the far end rings, or there is an answer.
    """
    found: dict[str, Party] = {}
    ours = {read.device for read in readings if read.device in read.parties}
    for read in readings:
        for device, (state, since) in read.parties.items():
            own = device == read.device  # the last one tells, where a device came back
            if device in ours and not own:
                continue
            known = found.get(device)
            if (
                own
                or known is None
                or since > known.since
                or (since == known.since and state == "cleared")
            ):
                found[device] = Party(device=device, state=state, since=since)
    for read in readings:
        other = (read.called or read.dialled) if read.calls else read.calling
        if other is not None and not read.parties.keys() - {read.device}:
            found.setdefault(other, Party(device=other, state="initiated", since=read.started))
    return tuple(found.values())


def _transfers(readings: list[Reading]) -> tuple[Transfer, ...]:
    found: list[Handing] = []
    for read in readings:
        for one in read.transfers:
            if not is_known(found, *one[:3]):
                found.append(one)
    return tuple(
        Transfer(by=by, to=to, at=at, consulted=consulted)
        for by, to, at, consulted in sorted(found, key=lambda one: one[2])
    )


def _holds(readings: list[Reading]) -> tuple[Hold, ...]:
    found: dict[tuple[str, datetime], datetime | None] = {}
    for read in readings:
        for device, since, until in read.holds:
            found[device, since] = found.get((device, since)) or until
    return tuple(
        Hold(device=device, since=since, until=until)
        for (device, since), until in sorted(found.items(), key=lambda one: one[0][1])
    )


def _recordings(read: Reading) -> tuple[Recording, ...]:
    if not read.recordings:
        return ()
    return tuple(
        Recording(id=name, file_name=file, started=started, stopped=stopped, successful=success)
        for name, (file, started, stopped, success) in read.recordings.items()
    )


def _seconds_on_hold(read: Reading, ended: datetime) -> float:
    """Return for how long the device itself had the call on hold."""
    if not read.holds:
        return 0.0
    begin = read.answered or read.started
    spans = [
        (max(since, begin), min(until or ended, ended))
        for device, since, until in read.holds
        if device == read.device
    ]
    return sum((_seconds(since, until) or 0.0 for since, until in spans), 0.0)


def _talk(answered: datetime | None, ended: datetime | None, hold: float) -> float | None:
    whole = _seconds(answered, ended)
    return None if whole is None else max(0.0, whole - hold)


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    if since is None or until is None:
        return None
    return max(0.0, (until - since).total_seconds())


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((one for one in times if one is not None), default=None)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _keys(leg: Leg, facts: Iterable[Fact]) -> tuple[EventKey, ...]:
    """Put together what dedupe compared of each event."""
    namespace, device, names, new = leg.namespace, leg.device, steps.WIRE_NAMES, tuple.__new__
    keys = []
    for _, serial, step, _, _, known_by, call in facts:
        if serial == INFERRED:
            continue
        if type(known_by) is EventKey:
            keys.append(known_by)
        else:
            parts = namespace, "csta", device, serial, names[step], known_by, call, None
            keys.append(new(EventKey, parts))  # as its own way does, which is twice as long
    return tuple(keys) if leg.wrap_up is None else (*keys, *leg.wrap_up[1])
