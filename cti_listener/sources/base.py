"""The plug between a connection and the listener.

A source brings events and says what becomes of its connection; it knows nothing of dedupe, handlers
or gaps. The listener is the only `Receiver`; `cti_listener.testing.FakeSource` is a source for
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from cti_listener.errors import ConnectError
from cti_listener.event_base import Delivery
from cti_listener.interest import Interest
from cti_listener.notices import GapReason
from cti_listener.wire.base import MessageBad, Recall, WireName


class Receiver(Protocol):
    """What a source tells. Every call is synchronous and quick, and none raises."""

    def event_received(
        self,
        payload: dict[str, Any],
        destination: str | None,
        delivery: Delivery,
        text: bytes | None = None,
    ) -> None:
        """Take an event object, the destination it came by, and its text if that is at hand."""

    def message_bad(self, bad: MessageBad) -> None:
        """Take note of a message that was no event."""

    def message_received(self, delivery: Delivery, wire: WireName = "other") -> Recall | None:
        """Count a WebSocket message; its events follow with the same delivery.

        Returns:
            What may be asked about a text before it is read; None while that does not pay.
        """

    def when_committed(self, call: Callable[[], None]) -> None:
        """Call once all events taken before are committed: at once where nothing keeps them."""

    def subscribed(
        self, url: str, *, feed: str, confirmed: bool, attempts: int, backlog: bool = False
    ) -> None:
        """Every destination stands that is not refused.

        With `backlog`, what came meanwhile was kept by the broker and is on its way; `caught_up`
        follows when it is in.
        """

    def caught_up(self, feed: str, *, recovered: bool, overflowed: bool = False) -> None:
        """The backlog is in; `recovered` is False where it may not have held all.

        `overflowed` says that the broker may have dropped some of it until now.
        """

    @property
    def queues_emptied(self) -> Mapping[str, datetime]:
        """When each queue that a broker keeps for us was known to be empty, as earlier runs say.

        Among them is what connections hold that may be dead, which is empty from a time to come.
        """

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        """Keep for later runs that these queues were empty then; None: rely on them no more."""

    def lost(self, url: str, *, feed: str, since: datetime, reason: GapReason, detail: str) -> None:
        """A subscribed connection ended; `since` is its last sign of life."""

    def attempt_failed(self, error: ConnectError, *, feed: str) -> None:
        """One attempt failed; the source goes on."""

    def destination_refused(
        self, destination: str, *, feed: str, since: datetime, detail: str
    ) -> None:
        """The server refuses one destination; the source goes on without it."""

    def destination_accepted(self, destination: str, *, feed: str) -> None:
        """A refused destination stands after all, or is wanted no more."""


class Source(Protocol):
    """Where events come from."""

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        """Bring events until stopped.

        Raises:
            RefusedError: The server said no before it ever said yes.
            UnreachableError: Every allowed attempt failed.
            ConfigurationError: The endpoint or a template cannot be used.
        """

    async def update(self) -> None:
        """Follow a changed interest; return when it stands, or when that takes too long."""

    def pause(self) -> None:
        """Read nothing until `resume()`."""

    def resume(self) -> None:
        """Read on."""

    async def stop(self) -> None:
        """Take no more at once, then close within the close timeout; `run()` returns."""

    @property
    def endpoints(self) -> Sequence[str]:
        """Where it connects, without credentials."""

    @property
    def last_signs(self) -> Mapping[str, datetime]:
        """When the last byte came that was taken, aware, by each feed that stands."""
