"""The plug between bytes and the listener: what every codec takes and gives.

A codec is sans-IO: the source hands it whole WebSocket messages and sends what it asks to have
sent. It knows no socket, no clock and no task. One codec lives for one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from cti_listener.errors import BadReason


class EventReceived(NamedTuple):
    """An event object as received; a tuple, for it is made once per event.

    Attributes:
        payload: The object.
        destination: The subscribed destination it came by; None where the wire has none.
    """

    payload: dict[str, Any]
    destination: str | None


class LateEvent(EventReceived):
    """One that comes after such as should have followed it, by the broker's own account."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SubscriptionConfirmed:
    """The server confirmed one destination."""

    destination: str


@dataclass(frozen=True, slots=True)
class SubscriptionDenied:
    """The server refused one destination; the session ends with it (STOMP 1.2, "ERROR").

    Attributes:
        destination: What was refused.
        detail: The server's words.
    """

    destination: str
    detail: str


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The server accepted the session; subscriptions are on their way.

    Attributes:
        heartbeat_send: Send something at least this often, in seconds; 0: no need.
        heartbeat_receive: The server promised something this often, in seconds; 0: it did not.
        server: What it calls itself, for the log.
    """

    heartbeat_send: float = 0.0
    heartbeat_receive: float = 0.0
    server: str = ""


@dataclass(frozen=True, slots=True)
class SessionDenied:
    """The server refused the session itself: credentials, virtual host, version."""

    detail: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The server ended the session with an ERROR frame."""

    detail: str


@dataclass(frozen=True, slots=True)
class MessageBad:
    """A message, or a part of one, was no event; the connection lives.

    Attributes:
        reason: One of the closed set.
        detail: What is wrong, for a person.
        sample: Its first bytes.
        count: How many there were in one WebSocket message; it is told once for each reason.
    """

    reason: BadReason
    detail: str
    sample: bytes = b""
    count: int = 1


WireEvent = (
    EventReceived
    | SubscriptionConfirmed
    | SubscriptionDenied
    | SessionOpened
    | SessionDenied
    | SessionEnded
    | MessageBad
)


WireName = Literal["stomp", "json", "other"]
"""What a message is in; `other`: by a source of a user's own. A closed set, fit for a label."""

LoneEvent = tuple[dict[str, Any] | None, str | None, bytes]
"""An event object, the destination it came by, and the JSON text it was read from.

No object: the text was recalled, and there was no need to read it.
"""

Recall = Callable[[bytes], bool]
"""Tells whether the text of an event came before, to the byte; then all is done that is to do."""


class Codec(Protocol):
    """Messages in, wire events and messages out."""

    wire: ClassVar[WireName]
    """What it speaks."""

    confirms: bool
    """Whether the server says that a subscription stands."""

    def open(self) -> None:
        """Begin the session; call once, when the WebSocket stands."""

    def lone_event(self, data: bytes, recall: Recall | None = None) -> LoneEvent | None:
        """Read a message that is one event and nothing else, as nearly all are, at little cost.

        Args:
            data: The message.
            recall: Asked before the text is read; None: it is read.

        Returns:
            None: `receive_data` has to look at it.
        """

    def receive_data(self, data: bytes) -> None:
        """Take a whole WebSocket message."""

    @property
    def unfinished(self) -> bool:
        """Whether an event may have come in part, the rest of it being in messages to come."""

    def events_received(self) -> list[WireEvent]:
        """Return what the messages since the last call said, in order."""

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send, in order; each a WebSocket text message."""

    def subscribe(self, destinations: Sequence[str]) -> None:
        """Ask for further destinations."""

    def unsubscribe(self, destinations: Sequence[str]) -> None:
        """Ask for these no longer."""

    def heartbeat(self) -> None:
        """Ask to have a heart-beat sent, where the wire has one."""

    def close(self) -> None:
        """End the session."""

    @property
    def destinations(self) -> Sequence[str]:
        """What is asked for: destinations, or the messages that subscribe."""

    def wait_no_longer(self) -> None:
        """Take what is unconfirmed for standing; what comes later is not its refusal."""

    def prove(self, destination: str | None) -> None:
        """Take an event that came by a destination for its confirmation."""

    @property
    def unconfirmed(self) -> Sequence[str]:
        """Destinations asked for and not confirmed yet; empty where the wire never confirms."""
