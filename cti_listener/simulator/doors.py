"""The two ways in, one connection's worth each: what a client may say, and what it is sent.

`JsonDoor` is here, `stomp_door` holds the other. A door is sans-IO: `sessions` moves its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from cti_listener.simulator.stream_faults import Message
from cti_listener.simulator.topics import JsonFilter, Route
from cti_listener.values import Payload


@dataclass(frozen=True)
class Outgoing:
    """A message on its way to whoever wants it, written once for all.

    Attributes:
        message: What is to be sent.
        route: What decides who gets it.
    """

    message: Message
    route: Route

    @cached_property
    def text(self) -> bytes:
        """The message as a JSON connection gets it."""
        message = self.message
        return compact(message.event) if message.body is None else message.body


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription of one client.

    Attributes:
        id: What the client calls it.
        destination: What it asked for.
        ack: Whether the client is to acknowledge (`client`, `client-individual`) or not (`auto`).
    """

    id: str
    destination: str
    ack: str = "auto"


@dataclass(slots=True)
class Replies:
    """What a client's message is answered with.

    Attributes:
        data: WebSocket messages to send, in order.
        close: Whether to close the connection behind them.
    """

    data: list[bytes] = field(default_factory=list)
    close: bool = False


class Door(Protocol):
    """One connection's side of the protocol."""

    wire: str

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """What the client is subscribed to now."""

    @property
    def heartbeat(self) -> tuple[float, float]:
        """How often to send something, and to expect something, in seconds; 0: never."""

    def receive(self, data: bytes) -> Replies:
        """Take a WebSocket message."""

    def error(self, why: str) -> list[bytes]:
        """Write what a client is told before it is thrown out; nothing where there is no such."""

    def wants(self, route: Route) -> bool:
        """Tell whether anything sent this way would reach the client."""

    def messages(self, outgoing: Outgoing) -> list[bytes]:
        """Write a message for the client, once for each subscription that wants it."""


class JsonDoor:
    """JSON: one event object a message; the URL tells what is wanted.

    A client may ask for more: `{"device": "8002@zhen04.cc"}`, with the keys of the URL. Whatever
    else it says is passed over.

    Args:
        target: The path and query of the handshake.
    """

    wire = "json"
    heartbeat = (0.0, 0.0)

    def __init__(self, target: str) -> None:
        """Read what is wanted."""
        self.subscriptions = (Subscription("", target),)
        self._filter = JsonFilter.read(target)

    def receive(self, data: bytes) -> Replies:
        """Take a wish for more."""
        with suppress(ValueError):
            asked = json.loads(data)
            if isinstance(asked, dict):
                self._filter = self._filter.with_more(asked)
        return Replies()

    def error(self, why: str) -> list[bytes]:
        """Write nothing: no such message is known."""
        del why
        return []

    def wants(self, route: Route) -> bool:
        """Tell whether anything sent this way would reach the client."""
        return self._filter.wants(route)

    def messages(self, outgoing: Outgoing) -> list[bytes]:
        """Write a message for the client."""
        return [outgoing.text] if self.wants(outgoing.route) else []


def compact(event: Payload) -> bytes:
    """Write an object as the server does: compact, Chinese as it is."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
