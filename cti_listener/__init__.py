"""A client for the event stream of a CTI server; see README.md.

Everything named here is public. It is imported when first used, so that the command line starts
fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cti_listener.client_state import ClientState
    from cti_listener.derived import (
        AgentStateChanged,
        CallAnswered,
        CallEnded,
        CallHeld,
        CallRetrieved,
        CallRevised,
        CallStarted,
        CallTransferred,
        Derived,
        Inconsistency,
    )
    from cti_listener.errors import (
        BadMessageError,
        CertificateError,
        ConfigurationError,
        ConnectError,
        CtiError,
        HaltError,
        HandlerError,
        JournalError,
        NotRunningError,
        RefusedError,
        SessionError,
        SinkAwayError,
        SinkError,
        UnreachableError,
        WaitTimeoutError,
    )
    from cti_listener.event_base import Delivery, Event
    from cti_listener.events import (
        AgentAllocated,
        AgentEvent,
        AgentLoggedOff,
        AgentLoggedOn,
        AgentMode,
        AgentNotReady,
        AgentReady,
        AgentWorkingAfterCall,
        CallEvent,
        Conferenced,
        ConnectionCleared,
        Delivered,
        Established,
        Failed,
        Held,
        LocalState,
        Originated,
        RecordEvent,
        RecordStarted,
        RecordStopped,
        Retrieved,
        ServiceInitiated,
        Transferred,
        UnknownEvent,
        parse_event,
    )
    from cti_listener.journal.base import JournalStats
    from cti_listener.lanes import Unhandled
    from cti_listener.listener import Listener
    from cti_listener.notices import (
        Connected,
        Disconnected,
        FeedsApart,
        Gap,
        Notice,
        Overflow,
        SubscriptionRefused,
    )
    from cti_listener.records import (
        Agent,
        Call,
        CallRecord,
        Hold,
        Party,
        Recording,
        Transfer,
    )
    from cti_listener.sightings import FeedStats
    from cti_listener.snapshots import CallSnapshot, DeviceSnapshot, SnapshotStats
    from cti_listener.sources.options import ConnectionOptions, Credentials
    from cti_listener.stats import HandlerStats, Stats
    from cti_listener.streams import EventStream, Expectation
    from cti_listener.tracking import Agents, Calls
    from cti_listener.values import EventKey

__version__ = "0.1.0"

_HOMES = {
    "cti_listener.client_state": ("ClientState",),
    "cti_listener.lanes": ("Unhandled",),
    "cti_listener.errors": (
        "BadMessageError",
        "CertificateError",
        "ConfigurationError",
        "ConnectError",
        "CtiError",
        "HaltError",
        "HandlerError",
        "JournalError",
        "NotRunningError",
        "RefusedError",
        "SessionError",
        "SinkAwayError",
        "SinkError",
        "UnreachableError",
        "WaitTimeoutError",
    ),
    "cti_listener.event_base": ("Delivery", "Event"),
    "cti_listener.events": (
        "AgentAllocated",
        "AgentEvent",
        "AgentLoggedOff",
        "AgentLoggedOn",
        "AgentMode",
        "AgentNotReady",
        "AgentReady",
        "AgentWorkingAfterCall",
        "CallEvent",
        "Conferenced",
        "ConnectionCleared",
        "Delivered",
        "Established",
        "Failed",
        "Held",
        "LocalState",
        "Originated",
        "RecordEvent",
        "RecordStarted",
        "RecordStopped",
        "Retrieved",
        "ServiceInitiated",
        "Transferred",
        "UnknownEvent",
        "parse_event",
    ),
    "cti_listener.derived": (
        "AgentStateChanged",
        "CallAnswered",
        "CallEnded",
        "CallHeld",
        "CallRetrieved",
        "CallRevised",
        "CallStarted",
        "CallTransferred",
        "Derived",
        "Inconsistency",
    ),
    "cti_listener.records": (
        "Agent",
        "Call",
        "CallRecord",
        "Hold",
        "Party",
        "Recording",
        "Transfer",
    ),
    "cti_listener.tracking": ("Agents", "Calls"),
    "cti_listener.sightings": ("FeedStats",),
    "cti_listener.snapshots": ("CallSnapshot", "DeviceSnapshot", "SnapshotStats"),
    "cti_listener.journal.base": ("JournalStats",),
    "cti_listener.listener": ("Listener",),
    "cti_listener.notices": (
        "Connected",
        "Disconnected",
        "FeedsApart",
        "Gap",
        "Notice",
        "Overflow",
        "SubscriptionRefused",
    ),
    "cti_listener.sources.options": ("ConnectionOptions", "Credentials"),
    "cti_listener.stats": ("HandlerStats", "Stats"),
    "cti_listener.streams": ("EventStream", "Expectation"),
    "cti_listener.values": ("EventKey",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Written out, for type checkers read no other; a test holds it to the table above.
__all__ = [
    "Agent",
    "AgentAllocated",
    "AgentEvent",
    "AgentLoggedOff",
    "AgentLoggedOn",
    "AgentMode",
    "AgentNotReady",
    "AgentReady",
    "AgentStateChanged",
    "AgentWorkingAfterCall",
    "Agents",
    "BadMessageError",
    "Call",
    "CallAnswered",
    "CallEnded",
    "CallEvent",
    "CallHeld",
    "CallRecord",
    "CallRetrieved",
    "CallRevised",
    "CallSnapshot",
    "CallStarted",
    "CallTransferred",
    "Calls",
    "CertificateError",
    "ClientState",
    "Conferenced",
    "ConfigurationError",
    "ConnectError",
    "Connected",
    "ConnectionCleared",
    "ConnectionOptions",
    "Credentials",
    "CtiError",
    "Delivered",
    "Delivery",
    "Derived",
    "DeviceSnapshot",
    "Disconnected",
    "Established",
    "Event",
    "EventKey",
    "EventStream",
    "Expectation",
    "Failed",
    "FeedStats",
    "FeedsApart",
    "Gap",
    "HaltError",
    "HandlerError",
    "HandlerStats",
    "Held",
    "Hold",
    "Inconsistency",
    "JournalError",
    "JournalStats",
    "Listener",
    "LocalState",
    "NotRunningError",
    "Notice",
    "Originated",
    "Overflow",
    "Party",
    "RecordEvent",
    "RecordStarted",
    "RecordStopped",
    "Recording",
    "RefusedError",
    "Retrieved",
    "ServiceInitiated",
    "SessionError",
    "SinkAwayError",
    "SinkError",
    "SnapshotStats",
    "Stats",
    "SubscriptionRefused",
    "Transfer",
    "Transferred",
    "Unhandled",
    "UnknownEvent",
    "UnreachableError",
    "WaitTimeoutError",
    "__version__",
    "parse_event",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
