"""What is told of calls and agents: frozen snapshots, and the record of a call that is over.

The trackers make them; `derived` notices and the views of the listener carry them. Times are the
server's (`eventTime`, whole seconds, aware); where an event has none that can be read, it is when
we received it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, PlainValidator, WithJsonSchema
from pydantic.alias_generators import to_camel

from cti_listener.values import EventKey

Direction = Literal["inbound", "outbound", "internal", "predictive"]
"""Who called whom: from outside, to outside, inside, or dialled by the server for an agent."""

State = Literal["initiated", "alerting", "connected", "held", "cleared", "failed"]
"""A party's state in a call, as CSTA names connection states; `held` is who put it on hold."""


def _read_key(value: object) -> EventKey:
    """Read what `plain` made of an event's key."""
    if isinstance(value, EventKey):
        return value
    given = value if isinstance(value, dict) else {}
    return EventKey(**{name: given.get(to_camel(name)) for name in EventKey._fields})


Key = Annotated[
    EventKey,
    PlainValidator(_read_key, json_schema_input_type=dict[str, Any]),
    WithJsonSchema({"type": "object", "description": "what makes an event that one"}),
]
"""An event's key; as JSON an object, without what is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is told at one moment; as JSON its names are in camelCase."""

    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party(Snapshot):
    """One party of a call.

    Attributes:
        device: Who, as a full id; an outside number too.
        state: Its state.
        since: Since when.
    """

    device: str
    state: State
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Snapshot):
    """A time on hold.

    Attributes:
        device: Who put the call on hold.
        since: From when.
        until: Until when; None: it is on hold.
    """

    device: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Snapshot):
    """A transfer.

    Attributes:
        by: Who handed the call over.
        to: To whom.
        at: When.
        consulted: The call in which the two had talked it over; None: they had not.
    """

    by: str | None
    to: str | None
    at: datetime
    consulted: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording(Snapshot):
    """A recording (1.16, 1.17).

    Attributes:
        id: Its `recordId`.
        file_name: Into which file.
        started: When it began.
        stopped: When it ended; None: it goes on, or nobody said.
        successful: What its last event said.
    """

    id: str | None
    file_name: str | None
    started: datetime | None
    stopped: datetime | None
    successful: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Snapshot):
    """A call as it stands.

    Attributes:
        id: The id that is valid now.
        former_ids: Ids it had before: a consulted call that became another's.
        direction: As the device sees it that was in it first; None: not known.
        parties: Everybody in it, and who has left; the first to come first.
        started: Its first step.
        alerted: When it first rang.
        answered: When it was first answered.
        ended: When the last of our devices hung up; None: it goes on.
        queue: The queue it came through (`split`).
        trunk_group: Its trunk group.
        trunk_member: Its trunk.
        user_data: The data that travel with it, as received.
        holds: All times on hold, by anybody.
        transfers: All transfers.
        members: Who was called together in a conference.
        recordings: All recordings.
        cause: Why it ended, or failed, in the server's words.
        hung_up_by: Who hung up.
        uncertain: Some of its events may have been missed.
    """

    id: str
    former_ids: tuple[str, ...] = ()
    direction: Direction | None = None
    parties: tuple[Party, ...] = ()
    started: datetime
    alerted: datetime | None = None
    answered: datetime | None = None
    ended: datetime | None = None
    queue: str | None = None
    trunk_group: str | None = None
    trunk_member: str | None = None
    user_data: Mapping[str, Any] | None = None
    holds: tuple[Hold, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    members: tuple[str, ...] = ()
    recordings: tuple[Recording, ...] = ()
    cause: str | None = None
    hung_up_by: str | None = None
    uncertain: bool = False

    def party(self, device: str) -> Party | None:
        """Return the party of this full id, if it is or was in the call."""
        return next((one for one in self.parties if one.device == device), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord(Snapshot):
    """What one device's part in a call was, from its first step to its hang-up.

    Seconds are differences of the server's times, so each is right to the second: ring, talk and
    hold together may exceed `ended - started` by no more than that. None where it is not known:
    for how long a call rang, or was talked on, that was given up.

    Attributes:
        id: The call's id at the end.
        former_ids: Ids it had before at this device.
        device: Whose record it is.
        agent: Who sat there when it was answered; where it was not, when it ended.
        direction: As this device sees it, by how it came into the call.
        other_party: With whom, at the end. Of a call that was handed over to it, this and what came
            with the call are what the device knew that did, where its own events do not tell.
        other_internal: Whether that is one of ours, by `internal=`.
        started: The first step.
        answered: When it was answered; None: it was not, or that was missed.
        ended: When this device was out of it.
        was_answered: Whether it was, even where it is not known when.
        ring_seconds: From the first ringing to the answer, else to the end.
        talk_seconds: From the answer to the end, less `hold_seconds`.
        hold_seconds: For how long this device had it on hold.
        wrap_up_seconds: For how long the agent worked after it; None until that is over.
        queue: The queue it came through (`split`).
        trunk_group: Its trunk group.
        trunk_member: Its trunk.
        user_data: The data that travel with it, as received.
        transferred_from: Who handed it to this device.
        transferred_to: To whom this device handed it.
        members: Who was called together in a conference.
        consult_ids: Calls this device made to talk about it, and those it joined it with.
        original_call_id: The call that this one is about, if it is such a consultation.
        merged_into: The conference into which it went.
        recordings: Its recordings.
        cause: Why it ended: the server's words; `conferenced`, `expired`.
        failed_code: What call recognition heard (`failed`), as received.
        failed_message: The same in words.
        hung_up_by: Who hung up, by this device's hang-up if that says so; None where that cannot
            be told.
        inferred: Nobody said that it ended: it had given no sign of life.
        uncertain: Some of its events may have been missed, or one could not follow the others.
        revision: 1 at the hang-up; what became known later counts up.
        events: What it was made from, in order; then what told of the work after it.
    """

    id: str
    former_ids: tuple[str, ...] = ()
    device: str
    agent: str | None = None
    direction: Direction | None = None
    other_party: str | None = None
    other_internal: bool | None = None
    started: datetime
    answered: datetime | None = None
    ended: datetime
    was_answered: bool = False
    ring_seconds: float | None = None
    talk_seconds: float | None = None
    hold_seconds: float = 0.0
    wrap_up_seconds: float | None = None
    queue: str | None = None
    trunk_group: str | None = None
    trunk_member: str | None = None
    user_data: Mapping[str, Any] | None = None
    transferred_from: str | None = None
    transferred_to: str | None = None
    members: tuple[str, ...] = ()
    consult_ids: tuple[str, ...] = ()
    original_call_id: str | None = None
    merged_into: str | None = None
    recordings: tuple[Recording, ...] = ()
    cause: str | None = None
    failed_code: Any = None
    failed_message: str | None = None
    hung_up_by: str | None = None
    inferred: bool = False
    uncertain: bool = False
    revision: int = 1
    events: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Snapshot):
    """An agent as last heard of.

    Attributes:
        id: The agent, as a full id; None: somebody whose name was never said.
        device: Where.
        mode: `Ready`, `NotReady`, `WorkNotReady`, `Allocated`, `Logout`, or what the server said.
        since: Since when by the server's clock.
        reason: Why not ready, as the server says it.
        calls: The calls of the device, by id, the oldest first.
        allocated: Set aside for a call that predictive dialling is to win.
        uncertain: Something may have been missed since.
    """

    id: str | None
    device: str
    mode: str
    since: datetime
    reason: str | None = None
    calls: tuple[str, ...] = ()
    allocated: bool = False
    uncertain: bool = False


def as_wire(snapshot: Any) -> dict[str, Any]:
    """Return a snapshot as the object that the command line prints: camelCase, ISO 8601 times."""
    return {to_camel(one.name): plain(getattr(snapshot, one.name)) for one in fields(snapshot)}


def plain(value: object) -> Any:
    """Turn a field's value into what JSON has."""
    match value:
        case datetime():
            return value.isoformat(timespec="milliseconds")
        case frozenset():
            return sorted(value)
        case EventKey():
            pairs = value._asdict().items()
            return {to_camel(name): one for name, one in pairs if one is not None}
        case tuple():
            return [plain(one) for one in value]
        case _ if is_dataclass(value):
            return as_wire(value)
        case _:
            return value
