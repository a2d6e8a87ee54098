"""JSON over WebSocket: one event object a message, or an array of them.

The subscription is in the URL or in messages sent after connecting; nothing ever confirms it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic_core import from_json

from cti_listener.errors import BadMessageError, BadReason
from cti_listener.events import load_json
from cti_listener.wire.base import (
    EventReceived,
    LoneEvent,
    MessageBad,
    Recall,
    SessionOpened,
    WireEvent,
    WireName,
)
from cti_listener.wire.price import CHEAP, EVENT, allowance, price_of_json, why_too_dear

SAMPLE = 200
"""How many bytes of a bad message are kept for the log."""


class JsonCodec:
    """A `Codec` for JSON messages.

    Args:
        messages: What to send after connecting, to subscribe.
        max_size: The longest message taken, in bytes; a longer one is left out.
    """

    wire: ClassVar[WireName] = "json"
    """What it speaks."""

    confirms = False
    """Whether the server says that a subscription stands."""

    def __init__(self, messages: Sequence[str] = (), *, max_size: int = 4 * 2**20) -> None:
        """Keep what to send on opening."""
        self._max_size = max_size
        self._short = min(CHEAP, max_size)  # up to there a message can pay for what it holds
        self._events: list[WireEvent] = []
        self._messages = list(messages)
        self._to_send = [message.encode() for message in messages]
        self._opened = False

    @property
    def destinations(self) -> Sequence[str]:
        """The messages that subscribe."""
        return tuple(self._messages)

    def wait_no_longer(self) -> None:
        """Do nothing: nothing is waited for."""

    def prove(self, destination: str | None) -> None:
        """Do nothing: nothing waits for a confirmation."""

    @property
    def unconfirmed(self) -> Sequence[str]:
        """Nothing is ever confirmed, so nothing is waited for."""
        return ()

    def open(self) -> None:
        """Begin: nothing is exchanged before the subscription."""
        self._opened = True
        self._events.append(SessionOpened())

    def lone_event(self, data: bytes, recall: Recall | None = None) -> LoneEvent | None:
        """Read a short message that is one object; None: `receive_data` has to look at it."""
        if len(data) > self._short or not data.startswith(b"{"):
            return None
        if recall is not None and recall(data):
            return None, None, data
        try:
            payload = from_json(data, cache_strings="keys")
        except ValueError:
            return None
        return payload, None, data

    def receive_data(self, data: bytes) -> None:
        """Take a whole message: an event object, or an array of them.

        One that holds more than its length pays for (`wire.price`) is `too_large`, as a whole.
        """
        if len(data) > self._max_size:
            self._tell_bad("too_large", f"{len(data)} bytes, above {self._max_size}", data)
            return
        left = allowance(len(data)) - (price_of_json(data) if len(data) > CHEAP else 0)
        if left < 0:
            self._tell_bad(*why_too_dear(data), data)
            return
        try:
            loaded = load_json(data)
        except BadMessageError as error:
            self._tell_bad(error.reason, error.detail, data)
            return
        items = loaded if type(loaded) is list else (loaded,)
        if left < EVENT * len(items):
            self._tell_bad(*why_too_dear(data), data)
            return
        events = [EventReceived(item, None) for item in items if type(item) is dict]
        self._events += events
        if odd := len(items) - len(events):
            what = next(type(item).__name__ for item in items if type(item) is not dict)
            self._tell_bad("not_an_object", f"an event is a JSON object, not {what}", data, odd)

    def _tell_bad(self, reason: BadReason, detail: str, data: bytes, count: int = 1) -> None:
        self._events.append(MessageBad(reason, detail, data[:SAMPLE], count))

    @property
    def unfinished(self) -> bool:
        """No event spans messages."""
        return False

    def events_received(self) -> list[WireEvent]:
        """Return what the messages since the last call said, in order."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> list[bytes]:
        """Return the messages that subscribe, once the session is open."""
        if not self._opened:
            return []
        data, self._to_send = self._to_send, []
        return data

    def subscribe(self, destinations: Sequence[str]) -> None:
        """Ask for more: here a destination is the very message that subscribes to it."""
        self._messages += destinations
        self._to_send += [message.encode() for message in destinations]

    def unsubscribe(self, destinations: Sequence[str]) -> None:
        """Forget them: no message is known that would end them, and the listener filters anyway."""
        self._messages = [one for one in self._messages if one not in destinations]

    def heartbeat(self) -> None:
        """Do nothing: the WebSocket ping is this wire's only heart-beat."""

    def close(self) -> None:
        """Do nothing: the closing handshake ends it."""
