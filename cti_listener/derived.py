"""Notices that follow from events: what a call or an agent came to by them.

`tracking` derives them; each follows right behind its event, in the same lane. A handler asks for
them by class, as for any notice; asking is what makes the listener track calls and agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

from cti_listener.notices import Notice
from cti_listener.records import Agent, Call, CallRecord, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Notice):
    """What every derived notice has.

    Asking for `Notice` does not ask for these.

    Attributes:
        device: The device whose events tell it, as a full id.
        event: The event that it follows; None: time alone, or a snapshot.
        inferred: No event said so.
        redelivered: With a journal: an earlier run may have begun to handle it.
    """

    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)

    device: str
    event: Key | None = None
    inferred: bool = False
    redelivered: bool = False

    @property
    def concerns(self) -> frozenset[str]:
        """The device."""
        return frozenset({self.device})


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCall(Derived):
    """What every notice of a call that goes on has.

    Attributes:
        call: The call as this device knows it.
    """

    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class OfRecord(Derived):
    """What every notice of a call that is over has.

    Attributes:
        call: Its whole record, as it is known now.
    """

    call: CallRecord

    @property
    def record(self) -> CallRecord:
        """The same as `call`."""
        return self.call


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(OfCall):
    """A device is in a call that it was not in before."""

    event_name: ClassVar[str] = "callStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered(OfCall):
    """The device answered, or whom it called did."""

    event_name: ClassVar[str] = "callAnswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHeld(OfCall):
    """A party put the call on hold; each device in it is told.

    Attributes:
        by: Who did.
    """

    event_name: ClassVar[str] = "callHeld"

    by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetrieved(OfCall):
    """A party took the call back from hold; each device in it is told.

    Attributes:
        by: Who did.
    """

    event_name: ClassVar[str] = "callRetrieved"

    by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTransferred(OfCall):
    """A call was handed over; each device in it is told, once.

    Attributes:
        by: Who handed it over.
        to: To whom.
    """

    event_name: ClassVar[str] = "callTransferred"

    by: str | None
    to: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(OfRecord):
    """A device is out of a call: once for each that began, right behind the hang-up."""

    event_name: ClassVar[str] = "callEnded"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRevised(OfRecord):
    """More became known of a call that has ended: the wrap-up, or an event that came late.

    The last one of a call is final.
    """

    event_name: ClassVar[str] = "callRevised"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStateChanged(Derived):
    """An agent is in another mode, or not ready for another reason, or is another agent.

    Attributes:
        agent: As it is now.
        previous: The mode before; None: not known.
        seconds: How long that lasted, by the server's clock; None: not known.
        reason: Why not ready, as the server says it.
    """

    event_name: ClassVar[str] = "agentStateChanged"

    agent: Agent
    previous: str | None
    seconds: float | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inconsistency(Derived):
    """A step that cannot follow what is known; it was believed all the same.

    Attributes:
        call: The call's id; None: it is about an agent.
        expected: The events that could have followed.
        got: The one that came.
    """

    event_name: ClassVar[str] = "inconsistency"

    call: str | None
    expected: tuple[str, ...]
    got: str


DERIVED: Final[tuple[type[Derived], ...]] = (
    CallStarted,
    CallAnswered,
    CallHeld,
    CallRetrieved,
    CallTransferred,
    CallEnded,
    CallRevised,
    AgentStateChanged,
    Inconsistency,
)
"""All of them."""


def read_derived(body: Mapping[str, Any]) -> Derived | None:
    """Read what `as_wire()` made; None if it is of a name that this version does not know.

    Raises:
        ValidationError: A field is not what it should be.
    """
    reader = _readers().get(str(body.get("eventName")))
    return None if reader is None else reader.validate_python(body)


@cache
def _readers() -> dict[str, TypeAdapter[Any]]:
    """Make what reads each notice back: some milliseconds, so not before it is needed."""
    return {kind.event_name: TypeAdapter(kind) for kind in DERIVED}
