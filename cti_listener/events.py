"""The events of the vendor's catalogue, and `parse_event`, which picks the class by name.

Section numbers are those of the catalogue. csta events come to every device in the call unless said
otherwise, each device getting a copy of its own; `own_device` tells whose step it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, WrapValidator
from pydantic_core import from_json

from cti_listener.errors import BadMessageError
from cti_listener.event_base import Delivery, Event, Flag, Text, WireObject
from cti_listener.values import Payload


class AgentMode(StrEnum):
    """Known values of `agent_mode`; the enumeration is open, so the field is text."""

    READY = "Ready"
    NOT_READY = "NotReady"
    WORK_NOT_READY = "WorkNotReady"
    ALLOCATED = "Allocated"
    LOGOUT = "Logout"
    UNKNOWN = "Unknown"


class LocalState(StrEnum):
    """Known values of `local_state`, the device's state after the event; open, too."""

    CONNECT = "Connect"
    INITIATE = "Initiate"
    ALERTING = "Alerting"
    HOLD = "Hold"
    NONE = "None"
    QUEUED = "Queued"
    FAIL = "Fail"
    IDLE = "Idle"


class OriginCallInfo(WireObject):
    """The call an event came from; often empty."""

    call_id: Text = None
    calling_device: Text = None
    called_device: Text = None


def _read_origin(value: object, strict: Callable[[object], OriginCallInfo]) -> OriginCallInfo:
    return OriginCallInfo.read(value) if isinstance(value, dict) else strict(value)


class AgentEvent(Event):
    """An event about an agent; it goes to the device where the agent is logged on."""

    agent_mode: Text = None
    devices: dict[str, Any] | None = None
    queue_id: Text = None
    property_names: list[Any] | None = None
    event_topics: list[Any] | None = None


class AgentLoggedOn(AgentEvent):
    """An agent logged on at a device (1.1). To the agent's device."""


class AgentLoggedOff(AgentEvent):
    """An agent logged off (1.2). To the agent's device."""


class AgentReady(AgentEvent):
    """An agent is ready for calls (1.3). To the agent's device."""


class AgentNotReady(AgentEvent):
    """An agent takes no calls, `reason` says why (1.4). To the agent's device."""

    reason: Text = None


class AgentWorkingAfterCall(AgentEvent):
    """An agent wraps up the call just ended (1.14). To the agent's device."""


class AgentAllocated(AgentEvent):
    """An agent is set aside for a call that predictive dialling is to win (1.15). To the device."""


class CallEvent(Event):
    """An event about a call, as one of its devices sees it."""

    own_field: ClassVar[str | None] = "device_id"

    local_state: Text = None
    agent_status: Text = None
    origin_call_info: Annotated[OriginCallInfo, WrapValidator(_read_origin)] | None = None
    connection_id: Text = None
    cause: Text = None
    call_type: Text = None
    property_names: list[Any] | None = None
    event_topics: list[Any] | None = None


class ServiceInitiated(CallEvent):
    """A device went off hook to call (1.5). To the calling device only."""

    own_field = "initiated_device"

    initiated_device: Text = None


class Originated(CallEvent):
    """A call was dialled (1.6); paired with `serviceInitiated`. To the calling device only."""

    own_field = "calling_device"


class Delivered(CallEvent):
    """A call rings at `alerting_device` (1.7). To every device in the call.

    Single-step conference: also to the first two parties. Single-step transfer: not to the one who
    transfers. Consultation: not to the held party.
    """

    own_field = "alerting_device"

    alerting_device: Text = None
    last_redirection_device: Text = None
    trunk_group: Text = None
    trunk_member: Text = None
    original_call_id: Text = None
    user_data: dict[str, Any] | None = None
    split: Text = None
    call_cause: Text = None
    origin_dnis: Text = Field(default=None, alias="origin_dnis")


class Established(CallEvent):
    """`answering_device` answered (1.8). To every device in the call, as `Delivered`."""

    own_field = "answering_device"

    answering_device: Text = None
    trunk_group: Text = None
    trunk_member: Text = None
    split: Text = None
    user_data: dict[str, Any] | None = None
    sip_call_id: Text = None


class ConnectionCleared(CallEvent):
    """`releasing_device` hung up (1.9). To every device in the call.

    An outbound call yields two, in either order: only the one with `own_device` is the device's own
    hang-up. The catalogue gives no field list; these are from its example and from newer servers.
    """

    own_field = "releasing_device"

    releasing_device: Text = None
    hangup_device: Text = None


class Transferred(CallEvent):
    """A call moved from `transferring_device` to `transferred_to_device` (1.10).

    To the one who transfers, by the catalogue; to all three, by field notes. Only at
    `transferred_to_device` does the call's id change, from `secondary_old_call` to `new_call`;
    `"0"` means no call.
    """

    own_field = "transferring_device"

    primary_old_call: Text = None
    secondary_old_call: Text = None
    transferring_device: Text = None
    transferred_to_device: Text = None
    new_call: Text = None


class Conferenced(CallEvent):
    """`added_party` joined a conference (1.11). To every device in it, again when one joins."""

    own_field = "conferencing_device"

    primary_old_call: Text = None
    secondary_old_call: Text = None
    conferencing_device: Text = None
    added_party: Text = None
    new_call: Text = None


class Retrieved(CallEvent):
    """`retrieving_device` took the call back from hold (1.12). To every device in the call."""

    own_field = "retrieving_device"

    retrieving_device: Text = None
    sip_call_id: Text = None


class Held(CallEvent):
    """`holding_device` put the call on hold (1.13). To every device in the call."""

    own_field = "holding_device"

    holding_device: Text = None


class RecordEvent(Event):
    """An event about a recording; fields from the examples, the catalogue lists none."""

    record_id: Text = None
    is_success: Flag = None
    file_name: Text = None
    property_names: list[Any] | None = None
    event_topics: list[Any] | None = None


class RecordStarted(RecordEvent):
    """A recording began, into `file_name` (1.16). To the recorded device."""


class RecordStopped(RecordEvent):
    """A recording ended; `record_id` is its start's (1.17). To the recorded device."""


class Failed(CallEvent):
    """A call failed, as call recognition heard it (newer servers, not in the catalogue).

    Between `delivered` and `connectionCleared`, to the calling device. `failed_code`: 1 busy, 2
    call reminder, 3 not reachable, 4 barred, 5 forwarded, 6 power off, 7 out of service, 8 does not
    exist, 9 on another call, 10 line busy, 11 no answer, 14 unknown; text, since servers differ.
    """

    failed_code: Any = None
    failed_msg: Text = None


class UnknownEvent(Event):
    """An event of a name that is not in the catalogue; nothing of it is lost."""

    @property
    def own_device(self) -> bool:
        """True for agent events, which are always about the device; nothing tells for others."""
        return self.event_type == "agent"


CATALOGUE: Final[dict[str, type[Event]]] = {
    kind.__name__[0].lower() + kind.__name__[1:]: kind
    for base in (AgentEvent, CallEvent, RecordEvent)
    for kind in base.__subclasses__()
}
"""The class of each wire name."""


_HALF: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Half a character as JSON escapes it; of a pair, too."""


def parse_event(
    raw: Payload | str | bytes, *, device: str | None = None, delivery: Delivery | None = None
) -> Event:
    """Turn an event object, or its JSON text, into its class: `UnknownEvent` for a name not listed.

    Args:
        raw: The object as received. It is never refused for a value or a name.
        device: Its routing key, where that is known already.
        delivery: What is ours about it.

    Raises:
        BadMessageError: `raw` is text that is not JSON, or not an object.
    """
    payload = raw if isinstance(raw, dict) else load_object(raw)
    event = class_of(payload).read(payload)
    if device is not None:
        event.__dict__["device"] = device
    if delivery is not None:
        event.__dict__["delivery"] = delivery
    return event


def event_of(payload: Payload, device: str | None, delivery: Delivery) -> Event:
    """Do as `parse_event` with an object that came; on the way of each event."""
    name = payload.get("eventName")
    kind = CATALOGUE.get(name, UnknownEvent) if type(name) is str else UnknownEvent
    event = kind.read(payload)
    own = event.__dict__
    if device is not None:
        own["device"] = device
    own["delivery"] = delivery
    return event


def event_in(text: bytes, kind: type[Event], device: str | None, delivery: Delivery) -> Event:
    """Do as `event_of` with the JSON text of an object of this class."""
    event = kind.read_text(text, load_object)
    own = event.__dict__
    if device is not None:
        own["device"] = device
    own["delivery"] = delivery
    return event


def class_of(payload: Payload) -> type[Event]:
    """Return the class that an event object is read as."""
    name = payload.get("eventName")
    return CATALOGUE.get(name, UnknownEvent) if isinstance(name, str) else UnknownEvent


def load_object(raw: object) -> dict[str, Any]:
    """Read JSON text that must be one object.

    Raises:
        BadMessageError: It is not.
    """
    loaded = load_json(raw) if isinstance(raw, str | bytes | bytearray) else raw
    if isinstance(loaded, dict):
        return loaded
    if isinstance(loaded, Mapping):
        return dict(loaded)
    raise BadMessageError(
        "not_an_object", f"an event is a JSON object, not {type(loaded).__name__}"
    )


def load_json(raw: str | bytes | bytearray) -> Any:
    """Read JSON text, nested 200 deep at most; half a character (a lone surrogate) is no fault.

    Raises:
        BadMessageError: It is not JSON (`not_json`), not UTF-8 (`not_utf8`) or nested too deep
            (`too_deep`).
    """
    try:
        return from_json(raw, cache_strings="keys")
    except (ValueError, TypeError) as error:  # TypeError: a str with lone surrogates
        detail = str(error)
    try:
        text = raw if isinstance(raw, str) else raw.decode()
    except UnicodeDecodeError as undecodable:
        raise BadMessageError("not_utf8", str(undecodable)) from None
    # Python's own reader takes half a character, and alas any depth: what is left without is read
    # first. An escape is put for an escape, so that a backslash before it stays escaped itself.
    whole = _HALF.sub(r"\\u0000", text.encode(errors="replace").decode())
    if whole == text:
        raise BadMessageError("too_deep" if "recursion" in detail else "not_json", detail)
    load_json(whole)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as unreadable:
        raise BadMessageError("not_json", str(unreadable)) from None
